"""Receivers in the configuration: one list, each entry of a kind, each kind with its own fields."""

import re
from pathlib import Path

import pytest

from monitor.checking import build_receiver
from monitor.config import load_settings
from monitor.errors import ConfigurationError
from tests.alerts.building import a_change

ROOT = Path(__file__).parent.parent.parent


def written(tmp_path, text):
    path = tmp_path / "bellwether.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_receiver_that_names_no_kind_is_a_webhook(tmp_path):
    settings = load_settings(written(tmp_path, "receivers: [{name: a, url: 'https://h/x', secret: whsec_x}]\n"))
    assert [receiver.kind for receiver in settings.receivers] == ["webhook"]


def test_the_fields_of_a_kind_are_its_own(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, "receivers: [{name: a, kind: slack, url: 'https://h/x', secret: s}]\n"))
    assert caught.value.problems == ["receivers.0.slack.secret: unknown key"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{name: a, kind: pigeon, url: x}", "webhook"),
        ("{name: a, kind: slack}", "exactly one of url and url_file"),
        ("{name: a, kind: feishu, url: x, secret: s, secret_file: f}", "secret and secret_file exclude each other"),
        ("{name: a, kind: pagerduty}", "exactly one of routing_key and routing_key_file"),
        ("{name: a, kind: mail, host: h, sender: a@b.c}", "recipients: Field required"),
        ("{name: a, kind: slack, url: x, timezone: Mars/Olympus}", "timezone: is no time zone"),
        ("{name: a, kind: slack, url: x, timezone: ../../etc/passwd}", "timezone: is no time zone"),
        ("{name: a, kind: slack, url: x, language: fr}", "language: Input should be 'en' or 'zh'"),
        ("{name: a, kind: slack, url: x, console_url: 'javascript:alert(1)'}", "console_url: String should match"),
        ("{name: a, kind: alertmanager, url: x, resend_every: 0s}", "resend_every"),
    ],
)
def test_what_is_wrong_with_a_receiver_is_said(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        load_settings(written(tmp_path, f"receivers: [{text}]"))


def test_every_kind_can_be_built_from_its_fields(tmp_path):
    (tmp_path / "secret").write_text("hush\n", encoding="utf-8")
    settings = load_settings(
        written(
            tmp_path,
            """
            receivers:
              - {name: program, url: 'https://h/x', secret: whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0, body: alertmanager}
              - {name: am, kind: alertmanager, url: 'http://am:9093', allow_http: true, resend_every: 30s}
              - {name: slack, kind: slack, url: 'https://h/x', language: zh, timezone: Asia/Shanghai}
              - {name: teams, kind: teams, url: 'https://h/x', console_url: 'https://c/{incident_id}'}
              - {name: feishu, kind: feishu, url: 'https://h/x', secret_file: secret}
              - {name: dingtalk, kind: dingtalk, url: 'https://h/x', secret: hush}
              - {name: wecom, kind: wecom, url_file: secret}
              - {name: pagerduty, kind: pagerduty, routing_key_file: secret}
              - {name: mail, kind: mail, host: h, sender: a@b.c, recipients: [d@e.f], username: u, password_file: secret}
            """,
        )
    )
    (tmp_path / "secret").write_text("https://h/hush\n", encoding="utf-8")
    receivers = {receiver.name: build_receiver(receiver) for receiver in settings.receivers}
    assert list(receivers) == ["program", "am", "slack", "teams", "feishu", "dingtalk", "wecom", "pagerduty", "mail"]
    assert "hush" not in f"{settings!r} {settings.model_dump_json()} {receivers!r}"
    assert receivers["am"].resend_every_ms == 30_000
    assert receivers["feishu"].secret.reveal() == "https://h/hush"
    change = a_change()
    assert "严重" in receivers["slack"].render(change).decode()
    assert "2026-11-25 13:14 (UTC+08:00)" in receivers["slack"].render(change).decode()
    assert f"https://c/{change.incident.incident_id}" in receivers["teams"].render(change).decode()


def test_a_receiver_that_cannot_be_used_is_told_with_its_name(tmp_path):
    settings = load_settings(written(tmp_path, "receivers: [{name: a, kind: mail, host: h, sender: x, recipients: [y], port: 25}]"))
    with pytest.raises(ConfigurationError, match=r"receiver a") as caught:
        build_receiver(settings.receivers[0])
    assert caught.value.problems == ["sender: is no mail address", "recipients.0: is no mail address"]


def written_receivers():
    """The receivers of the README and, without their comment signs, those of the example."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Receivers\n")[2]
    yield re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)[1]
    example = (ROOT / "deploy/example/bellwether.yaml").read_text(encoding="utf-8").partition("receivers: []\n")[2]
    yield "".join(line.removeprefix("# ") + "\n" for line in example.splitlines() if line.startswith("# "))


@pytest.mark.parametrize("text", list(written_receivers()), ids=["README", "example"])
def test_what_is_written_about_receivers_can_be_used_as_it_is(tmp_path, text):
    hushed = re.sub(r"/run/secrets/(\S+)", lambda found: str(tmp_path / found[1]), text)
    for name in re.findall(r"/run/secrets/(\S+)", text):
        secret = {"risk-desk-secret": "whsec_" + "c2VjcmV0" * 4}.get(name, "https://receiver.example/x")
        (tmp_path / name).write_text(secret, encoding="utf-8")
    settings = load_settings(written(tmp_path, hushed))
    built = [build_receiver(receiver) for receiver in settings.receivers]
    assert len(built) >= 5
    assert all(receiver.render(a_change()) for receiver in built)
