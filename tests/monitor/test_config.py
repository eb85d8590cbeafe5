"""Settings: durations with units, every fault with its path, secrets masked, the environment above the file."""

from datetime import timedelta
from pathlib import Path

import pytest

from monitor.config import ModelSettings, Settings, load_settings, parse_duration
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


ROLE = "model: {sentiment: {checkpoint: %s}}\n"


@pytest.mark.parametrize(
    ("text", "folder"), [("./finbert", "finbert"), ("../a/b", "../a/b"), ("/models/finbert", "/models/finbert")]
)
def test_a_checkpoint_that_begins_like_a_path_is_a_folder_beside_the_file(tmp_path, text, folder):
    settings = load_settings(written(tmp_path, ROLE % text))
    assert settings.model.sentiment.checkpoint == (tmp_path / folder).resolve()


def test_any_other_checkpoint_is_a_name_on_the_hub_even_where_a_folder_has_that_name(tmp_path):
    (tmp_path / "ProsusAI" / "finbert").mkdir(parents=True)
    settings = load_settings(written(tmp_path, "model: {sentiment: {checkpoint: ProsusAI/finbert, revision: refs/pr/8}}\n"))
    assert (settings.model.sentiment.checkpoint, settings.model.sentiment.revision) == ("ProsusAI/finbert", "refs/pr/8")
    assert settings.model.topic.checkpoint is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ROLE % "a/b/c", r'sentiment\.checkpoint: must be a folder that begins with "/", "\./" or "\.\./", or a name on the hub'),
        (ROLE % "''", "must be a folder"),
        ("model: {topic: {labels: {a: b}}}", r"model\.topic: labels: nothing without checkpoint"),
        ("model: {topic: {temperature: 2, max_tokens: 64}}", r"model\.topic: max_tokens, temperature: nothing without checkpoint"),
        ("model: {topic: {checkpoint: ./a, revision: b}}", "revision: only a checkpoint on the hub has one"),
        (
            "model: {sentiment: {checkpoint: ./a, labels: {up: bullish}}}",
            r"sentiment\.labels\.up: .*'negative', 'neutral' or 'positive'",
        ),
        ("model: {topic: {checkpoint: ./a, labels: {up: ' '}}}", r"topic\.labels\.up"),
        ("model: {topic: {checkpoint: ./a, temperature: 0}}", r"topic\.temperature"),
        ("model: {topic: {checkpoint: ./a, temperature: .inf}}", r"topic\.temperature"),
        ("model: {topic: {checkpoint: ./a, uncertain_below: 1.1}}", r"topic\.uncertain_below"),
    ],
)
def test_what_is_no_role_of_a_checkpoint_is_refused(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=says):
        load_settings(written(tmp_path, text))


def test_labels_keep_their_names_and_may_be_mapped_to_nothing(tmp_path):
    text = "model: {sentiment: {checkpoint: ./a, labels: {LABEL_0: negative, LABEL_1: null}}}\n"
    assert load_settings(written(tmp_path, text)).model.sentiment.labels == {"LABEL_0": "negative", "LABEL_1": None}


def test_the_model_section_in_force_can_be_read_back():
    model = ModelSettings(sentiment={"checkpoint": "/models/finbert", "labels": {"up": "positive"}})
    assert ModelSettings(**model.model_dump(mode="json")) == model


def test_a_role_can_be_given_by_the_environment(monkeypatch):
    monkeypatch.setenv("BELLWETHER_MODEL__SENTIMENT__CHECKPOINT", "/models/finbert")
    monkeypatch.setenv("BELLWETHER_MODEL__SENTIMENT__LABELS", '{"bearish": "negative"}')
    sentiment = load_settings(None).model.sentiment
    assert (sentiment.checkpoint, sentiment.labels) == (Path("/models/finbert"), {"bearish": "negative"})
