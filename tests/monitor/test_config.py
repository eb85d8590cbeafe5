"""Settings: durations with units, every fault with its path, secrets masked, the environment above the file."""

from datetime import timedelta
from pathlib import Path

import pytest

from monitor.config import Settings, load_settings, parse_duration
from monitor.errors import ConfigurationError


def written(tmp_path, text):
    path = tmp_path / "bellwether.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("15m", 900), ("1h 30m", 5_400), ("2d", 172_800), ("0.5h", 1_800)]
)
def test_a_duration_is_a_number_with_its_unit(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "h", "-1h", "1h and a bit", 5, 0.5, True])
def test_a_duration_without_a_known_unit_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_every_fault_is_listed_with_its_path(tmp_path):
    path = written(tmp_path, "batch: {max_wait: 5, max_tokens: 1}\nsourse: {}\nweb: {port: 70000}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    text = str(caught.value)
    for place in ("batch.max_wait", "batch.max_tokens", "sourse: unknown key", "web.port"):
        assert place in text


@pytest.mark.parametrize(("text", "says"), [("a: [1", "is not YAML"), ("- a", "must be a mapping"), ("a: b: c", "is not YAML")])
def test_a_file_that_is_no_mapping_is_refused_in_one_sentence(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=says):
        load_settings(written(tmp_path, text))


def test_a_missing_file_is_named():
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        load_settings(Path("nowhere.yaml"))


def test_the_environment_stands_above_the_file(tmp_path, monkeypatch):
    path = written(tmp_path, "source: {kafka: {group_id: from-file, client_id: kept}}\n")
    monkeypatch.setenv("BELLWETHER_SOURCE__KAFKA__GROUP_ID", "from-environment")
    kafka = load_settings(path).source.kafka
    assert (kafka.group_id, kafka.client_id) == ("from-environment", "kept")


def test_paths_are_relative_to_the_file_that_names_them(tmp_path):
    settings = load_settings(written(tmp_path, "rules_file: rules.yaml\nstore: {url_file: secrets/url}\n"))
    assert settings.rules_file == tmp_path / "rules.yaml"
    assert settings.store.url_file == tmp_path / "secrets" / "url"


def test_a_secret_is_shown_nowhere_and_read_from_its_file(tmp_path):
    (tmp_path / "url").write_text("sqlite:///quite-secret.db\n", encoding="utf-8")
    settings = load_settings(
        written(tmp_path, "store: {url_file: url}\nreceivers: [{name: a, url: 'https://h/s3cr3t', secret: whsec_x}]\n")
    )
    shown = f"{settings!r} {settings.model_dump_json()}"
    assert "s3cr3t" not in shown
    assert "whsec_x" not in shown
    assert settings.store.database_url() == "sqlite:///quite-secret.db"


def test_a_wrong_secret_is_not_repeated_in_the_fault(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, "receivers: [{name: a, url: [s3cr3t], secret: whsec_x}]\n"))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("receivers: [{name: a, url: x, url_file: y, secret: s}]", "exactly one of url and url_file"),
        ("receivers: [{name: a, url: x}]", "exactly one of secret and secret_file"),
        ("receivers: [{name: a, url: x, secret: s}, {name: a, url: x, secret: s}]", "twice: a"),
        ("store: {url: x, url_file: y}", "exclude each other"),
        ("source: {kafka: {security_protocol: SASL_SSL}}", "needs sasl_username"),
    ],
)
def test_what_excludes_or_needs_each_other_is_said(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=says):
        load_settings(written(tmp_path, text))


def test_the_defaults_are_a_whole_configuration():
    assert load_settings(None) == Settings()
