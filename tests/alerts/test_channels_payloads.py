"""What each kind of receiver is sent: within its limits, with every hostile text shown as it is and never obeyed."""

import base64
import hashlib
import hmac
import html
import json
import re
from dataclasses import replace
from datetime import UTC
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alerts.catalogue import Language
from alerts.channels import dingtalk, feishu, mail, pagerduty, slack, teams, wecom
from alerts.channels.alertmanager import AlertmanagerReceiver
from alerts.channels.dingtalk import DingTalkReceiver
from alerts.channels.feishu import FeishuReceiver
from alerts.channels.mail import MailReceiver
from alerts.channels.markdown import inert
from alerts.channels.pagerduty import PagerDutyReceiver
from alerts.channels.posting import Endpoint
from alerts.channels.slack import SlackReceiver
from alerts.channels.smtp import MailServer, Security
from alerts.channels.teams import TeamsReceiver
from alerts.channels.webhook import BodyFormat, WebhookReceiver
from alerts.channels.wecom import WeComReceiver
from alerts.messages import ANNOTATION_LENGTH, MOST_TEXTS
from alerts.notice import StoryLine, Voice, compose, fitted
from alerts.signature import Secret
from alerts.text import json_bytes, plain_text
from alerts.types import ChangeKind, Delivery, RuleKind
from monitor.errors import DeliveryError
from tests.alerts.building import a_change, minutes

ENDPOINT = Endpoint(Secret("https://receiver.test/hook?key=1"))
LINK = "https://console.example/incidents/{incident_id}?a=1&b=(2)|3"
VOICES = [Voice(console_url=LINK), Voice(Language.CHINESE, ZoneInfo("Asia/Shanghai"), LINK), Voice()]

HOSTILE = [
    "<!channel> <!here> <@U123|x> <https://evil.example|Open the incident>",
    '@all @channel <@all> <at id=all></at> <at user_id="all">all</at> @13800000000',
    "[Open the incident](https://evil.example) ![x](https://evil.example/a.png)",
    "**bold** _it_ `code` ```\nfence\n``` # heading\n> quote\n- list",
    "</font></p><script>alert(1)</script><img src=x onerror=y> &lt;b&gt; &amp;",
    "{{DATE(2017-02-14T06:08:39Z, SHORT)}} ${secret} @{triggerBody()} {{{x}}}",
    "line\r\nBcc: x@y.example\u2028next\x00\x1b[31m\u202eevil",
    '"},{"tag":"at","user_id":"all"}',
    "\\*not\\* \\\\ \ud800 | table | : ~ ^ ：// ://",
    "&" * 400,
    "哈" * 400,
    "",
]
hostile = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(), max_size=400), st.text("<>&[]()*_`~#|@!{}\\:/ \n", max_size=80)
)


def a_slack(voice):
    return SlackReceiver("r", ENDPOINT, voice)


def a_teams(voice):
    return TeamsReceiver("r", ENDPOINT, voice)


def a_feishu(voice):
    return FeishuReceiver("r", ENDPOINT, Secret("hush"), voice)


def a_dingtalk(voice):
    return DingTalkReceiver("r", ENDPOINT, Secret("hush"), voice)


def a_wecom(voice):
    return WeComReceiver("r", ENDPOINT, voice)


def a_pagerduty(voice):
    return PagerDutyReceiver("r", Secret("hush"), voice=voice)


def a_mail(voice):
    return MailReceiver("r", MailServer("mail.test", 587, Security.STARTTLS), "a@b.example", ("c@d.example",), voice=voice)


def an_alertmanager(voice):
    return AlertmanagerReceiver("r", Endpoint(Secret("https://receiver.test/am")), voice)


def a_webhook(voice, body=BodyFormat.BELLWETHER):
    return WebhookReceiver("r", ENDPOINT, (Secret("whsec_" + "c2VjcmV0" * 4),), voice, body)


def a_webhook_of_another_shape(voice):
    return a_webhook(voice, BodyFormat.ALERTMANAGER)


CHATS = [a_slack, a_teams, a_feishu, a_dingtalk, a_wecom, a_pagerduty, a_mail]
MAKERS = [*CHATS, an_alertmanager, a_webhook, a_webhook_of_another_shape]


def with_everywhere(text):
    """A change in which this text stands wherever text from outside may stand."""
    return a_change(display=text, rule=text, summary=text, annotations={"summary": text, text: text}, labels={text: text})


# The writers of each module, so that stories can be given to them.
WRITERS = {
    "slack": lambda notice: json.loads(json_bytes(slack._message(notice))),
    "teams": lambda notice: json.loads(json_bytes(teams._message(notice))),
    "feishu": lambda notice: json.loads(json_bytes(feishu._message(notice))),
    "dingtalk": lambda notice: json.loads(json_bytes(dingtalk._message(notice))),
    "wecom": wecom._content,
    "mail": mail._content,
}


def a_notice(text, voice=VOICES[0]):
    stories = [StoryLine(text, (text, "Reuters"), 12), StoryLine(text)]
    return compose(with_everywhere(text), voice, stories)


def shown(text, limit):
    """What a reader should see of a text from outside."""
    return plain_text(text, limit)


# --- Slack ---------------------------------------------------------------------------------------

SLACK_LINK = re.compile(r"<https://console\.example/[^<>|]*\|[^<>|]*>")


def slack_texts(message):
    found = [message["text"]]
    for block in message["blocks"]:
        parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        found += [part["text"] for part in parts if part]
    return found


def check_blocks(message):
    """The limits of Block Kit."""
    assert message.keys() == {"text", "blocks"}
    assert 1 <= len(message["blocks"]) <= 50
    for block in message["blocks"]:
        match block["type"]:
            case "header":
                assert block["text"]["type"] == "plain_text"
                assert 1 <= len(block["text"]["text"]) <= 150
            case "section" if "fields" in block:
                assert 1 <= len(block["fields"]) <= 10
                assert all(1 <= len(part["text"]) <= 2_000 for part in block["fields"])
            case "section":
                assert 1 <= len(block["text"]["text"]) <= 3_000
            case "context":
                assert 1 <= len(block["elements"]) <= 10
            case kind:
                assert (kind, block.keys()) == ("divider", {"type"})
        for part in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]:
            assert part is None or part["type"] == "plain_text" or (part["type"], part["verbatim"]) == ("mrkdwn", True)


@settings(max_examples=150, deadline=None)
@given(hostile)
@example("&" * 400)
def test_slack_shows_a_hostile_text_and_obeys_none(text):
    message = WRITERS["slack"](a_notice(text))
    check_blocks(message)
    texts = slack_texts(message)
    for one in texts:
        bare = SLACK_LINK.sub("", one)
        assert not re.search(r"[<>]", bare), "no mention, no link but our own"
        assert not re.search(r"&(?!amp;|lt;|gt;)", bare)
    stories = [html.unescape(one) for one in texts if one.startswith("•")]
    assert not shown(text, 200) or stories[0].startswith(f"• {shown(text, 200)}")


def test_slack_gets_what_a_desk_wants_to_know():
    message = json.loads(a_slack(VOICES[0]).render(a_change()))
    check_blocks(message)
    title, why, facts, footer = message["blocks"]
    assert title["text"]["text"].endswith("Critical: Halden Bank")
    assert why["text"]["text"] == "Halden Bank: 61.9 % of 21 stories negative over 1 h (limit 50 %)"
    assert "*Stories*\n21 (13 negative, 3 neutral, 4 positive, 1 uncertain)" in [part["text"] for part in facts["fields"]]
    page = "https://console.example/incidents/143186a8c061ff14463a?a=1&amp;b=(2)%7C3"
    assert footer["elements"][0]["text"] == f"<{page}|Open the incident> · Incident 143186a8c061ff14463a"


# --- Teams ---------------------------------------------------------------------------------------


def check_card(card):
    """An Adaptive Card 1.4 of rich text blocks, and of nothing that reads markdown."""
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert set(card) <= {"$schema", "type", "version", "msteams", "body", "actions"}
    assert card["msteams"] == {"width": "Full"}, "no mentions"
    for block in card["body"]:
        assert block["type"] == "RichTextBlock"
        assert set(block) <= {"type", "inlines", "spacing", "separator"}
        for run in block["inlines"]:
            assert run["type"] == "TextRun"
            assert set(run) <= {"type", "text", "weight", "size", "color", "isSubtle"}
            assert run.get("color", "Default") in {"Default", "Accent", "Warning", "Attention", "Good"}
            assert isinstance(run["text"], str)
    for action in card.get("actions", []):
        assert (action["type"], set(action)) == ("Action.OpenUrl", {"type", "title", "url"})
        assert action["url"].startswith("https://console.example/")


@settings(max_examples=150, deadline=None)
@given(hostile)
def test_teams_shows_a_hostile_text_and_obeys_none(text):
    message = WRITERS["teams"](a_notice(text))
    assert message["type"] == "message"
    (attachment,) = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    check_card(attachment["content"])
    runs = [run["text"] for block in attachment["content"]["body"] for run in block["inlines"]]
    assert not any("{{" in run for run in runs), "no date function"
    assert not shown(text, 200) or f"• {shown(text, 200)}".replace(" ", "") in {run.replace(" ", "") for run in runs}


# --- Feishu --------------------------------------------------------------------------------------


def feishu_texts(node):
    """Every element that shows text, with its kind."""
    if isinstance(node, dict):
        if "content" in node:
            yield node["tag"], node["content"]
        for value in node.values():
            yield from feishu_texts(value)
    elif isinstance(node, list):
        for item in node:
            yield from feishu_texts(item)


@settings(max_examples=150, deadline=None)
@given(hostile)
def test_feishu_shows_a_hostile_text_and_obeys_none(text):
    message = WRITERS["feishu"](a_notice(text))
    card = message["card"]
    assert (message["msg_type"], set(card)) == ("interactive", {"config", "header", "elements"})
    assert {element["tag"] for element in card["elements"]} <= {"div", "hr", "action", "note"}
    found = list(feishu_texts(card))
    assert {tag for tag, _ in found} == {"plain_text"}, "nothing that reads markdown or mentions"
    assert not shown(text, 200) or any(content.startswith(f"• {shown(text, 200)}") for _, content in found)
    assert all(
        button["url"].startswith("https://console.example/")
        for element in card["elements"]
        for button in element.get("actions", [])
    )


def test_feishu_is_signed_with_the_second_and_the_secret_and_the_row_holds_neither():
    receiver = a_feishu(Voice())
    body = receiver.render(a_change())
    assert b"sign" not in body.replace(b"assign", b"")
    request = receiver.request(Delivery("m", "r", "i", 1, body, 0, 0), 1_795_583_640_999)
    sent = json.loads(request.body)
    key = b"1795583640\nhush"
    assert (sent["timestamp"], sent["sign"]) == (
        "1795583640",
        base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode(),
    )
    assert {name: value for name, value in sent.items() if name not in {"timestamp", "sign"}} == json.loads(body)
    assert replace(receiver, secret=None).request(Delivery("m", "r", "i", 1, body, 0, 0), 0).body == body


# --- DingTalk and WeCom --------------------------------------------------------------------------

MARKUP = re.compile(r"[<>\[\]()*_`~#|\\@!&]|://")
OUR_LINK = re.compile(r"\[(?:Open the incident|查看事件)\]\(https://console\.example/[^()\s]*\)")


@settings(max_examples=200)
@given(hostile)
def test_inert_text_holds_nothing_that_markdown_is_made_of_and_loses_nothing(text):
    quiet = inert(text)
    assert not MARKUP.search(quiet)
    assert len(quiet) == len(text)


@settings(max_examples=150, deadline=None)
@given(hostile)
def test_dingtalk_shows_a_hostile_text_and_obeys_none(text):
    message = WRITERS["dingtalk"](a_notice(text))
    assert message["msgtype"] == "markdown"
    assert message["at"] == {"atMobiles": [], "atUserIds": [], "isAtAll": False}
    assert not MARKUP.search(message["markdown"]["title"])
    content = message["markdown"]["text"]
    bare = OUR_LINK.sub("", content, count=1)
    bare = re.sub(r"^- \*\*[^*]+\*\* |^\*\*[^*]+\*\*$|^### ", "", bare, flags=re.MULTILINE)
    assert not MARKUP.search(bare)
    assert not shown(text, 200) or f"- {inert(shown(text, 200))}" in content


@settings(max_examples=150, deadline=None)
@given(hostile)
def test_wecom_shows_a_hostile_text_and_obeys_none(text):
    content = WRITERS["wecom"](a_notice(text))
    bare = OUR_LINK.sub("", content, count=1)
    bare = re.sub(r'<font color="(?:info|comment|warning)">|</font>|^> |^### |^\*\*[^*]+\*\*$', "", bare, flags=re.MULTILINE)
    # A fact's name may hold brackets of our own.
    bare = bare.replace("(-1 to 1)", "")
    assert not MARKUP.search(bare)
    assert not shown(text, 200) or f"1. {inert(shown(text, 200))}" in content


def test_dingtalk_is_signed_with_the_millisecond_and_the_secret_in_the_url():
    receiver = a_dingtalk(Voice())
    body = receiver.render(a_change())
    request = receiver.request(Delivery("m", "r", "i", 1, body, 0, 0), 1_795_583_640_999)
    query = parse_qs(urlsplit(request.url.reveal()).query)
    signed = hmac.new(b"hush", b"1795583640999\nhush", hashlib.sha256).digest()
    assert query == {"key": ["1"], "timestamp": ["1795583640999"], "sign": [base64.b64encode(signed).decode()]}
    assert request.body == body
    plain = replace(receiver, secret=None).request(Delivery("m", "r", "i", 1, body, 0, 0), 0)
    assert plain.url.reveal() == "https://receiver.test/hook?key=1"


# --- PagerDuty -----------------------------------------------------------------------------------


def test_pagerduty_triggers_and_resolves_under_one_key_and_the_row_holds_no_routing_key():
    receiver = a_pagerduty(VOICES[0])
    opened, resolved = (receiver.render(a_change(resolved=over)) for over in (False, True))
    events = [json.loads(receiver.request(Delivery("m", "r", "i", 1, body, 0, 0), 0).body) for body in (opened, resolved)]
    assert [event["event_action"] for event in events] == ["trigger", "resolve"]
    assert {event["dedup_key"] for event in events} == {"143186a8c061ff14463a"}
    assert {event["routing_key"] for event in events} == {"hush"}
    assert b"hush" not in opened + resolved
    assert events[0]["payload"]["severity"] == "critical"
    assert events[0]["links"][0]["text"] == "Open the incident"


@settings(max_examples=100, deadline=None)
@given(hostile)
def test_pagerduty_gets_any_text_as_text_within_its_limits(text):
    event = json.loads(a_pagerduty(VOICES[0]).render(with_everywhere(text)))
    assert set(event) == {"event_action", "dedup_key", "client", "client_url", "links", "payload"}
    assert 1 <= len(event["payload"]["summary"]) <= 1_024
    assert event["payload"]["severity"] in {"critical", "error", "warning", "info"}
    assert len(event["dedup_key"]) <= 255


# --- all -----------------------------------------------------------------------------------------

LIMITS = {
    a_slack: slack.MESSAGE_BYTES,
    a_teams: 28_000,
    a_feishu: 20_000,
    a_dingtalk: 20_000,
    a_wecom: 4_096 + 100,
    a_pagerduty: 512_000,
    a_mail: mail.MAIL_BYTES,
    an_alertmanager: 200_000,
    a_webhook: 20_000,
    a_webhook_of_another_shape: 200_000,
}


@pytest.mark.parametrize("make", MAKERS)
@settings(max_examples=40, deadline=None)
@given(hostile, st.sampled_from(VOICES), st.booleans())
@example("&" * 2_000, VOICES[1], True)
@example("哈" * 2_000, VOICES[1], False)
@example("\U0001f4a3" * 2_000, VOICES[0], False)
def test_whatever_a_message_says_it_fits_and_is_the_same_twice(make, text, voice, resolved):
    change = replace(with_everywhere(text), incident=replace(with_everywhere(text).incident, resolved_at_ms=None))
    if resolved:
        change = a_change(resolved=True, display=text, rule=text, summary=text)
    body = make(voice).render(change)
    assert len(body) <= LIMITS[make]
    assert body == make(voice).render(change)
    json.loads(body)


@pytest.mark.parametrize("make", MAKERS)
def test_a_rule_with_all_the_texts_that_it_may_have_still_fits(make):
    """What the judge decides must never fail because of what it says."""
    texts = {f"{number:02}" + "n" * 60: "\U0001f4a3" * ANNOTATION_LENGTH for number in range(MOST_TEXTS)}
    body = make(VOICES[1]).render(a_change(labels=texts, annotations=texts, summary="\U0001f4a3" * 300, display="\U0001f4a3" * 300))
    assert len(body) <= LIMITS[make]


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize("size", [1, 400, 4_000])
def test_stories_are_shortened_before_anything_else(name, size):
    """With very long headlines and a small limit the facts are still whole."""
    stories = [StoryLine(f"{number} " + "哈" * size, ("路透社",) * 3, 3) for number in range(9)]
    notice = compose(a_change(), VOICES[1], stories)
    assert len(notice.stories) == 5

    def size_of(written):
        return len(written.encode() if isinstance(written, str) else json_bytes(written))

    bare = size_of(WRITERS[name](replace(notice, stories=())))
    written = fitted(notice, WRITERS[name], lambda written: size_of(written) <= bare + 700)
    text = written if isinstance(written, str) else json.dumps(written, ensure_ascii=False)
    assert "13 负面" in text
    assert "0 哈" in text


def test_wecom_content_never_exceeds_4096_bytes_with_five_long_stories():
    stories = [StoryLine("哈" * 300, ("路透社" * 20,), 3)] * 5
    content = fitted(
        compose(a_change(display="哈" * 300, summary="尔" * 400), VOICES[1], stories),
        wecom._content,
        lambda text: len(text.encode()) <= 4_096,
    )
    assert len(content.encode()) <= wecom.CONTENT_BYTES
    assert content.count("哈哈") > 3


def test_a_message_that_nothing_makes_fit_is_an_error_and_no_truncated_payload():
    with pytest.raises(DeliveryError, match="143186a8c061ff14463a"):
        fitted(compose(a_change(), Voice(timezone=UTC)), slack._message, lambda _: False)


def test_pagerduty_and_alertmanager_carry_stories_too():
    notice = compose(a_change(), Voice(), [StoryLine("Halden halts withdrawals", ("Reuters", "FT"), 12)])
    assert pagerduty._event(a_change(), notice)["payload"]["custom_details"]["Leading stories"] == [
        "Halden halts withdrawals (Reuters, FT, 12 more copies)"
    ]


def test_alertmanager_hears_that_the_quieter_alert_is_over_when_an_incident_becomes_louder():
    louder = a_change(kind=RuleKind.SURGE, sequence=2)
    change = replace(louder, kind=ChangeKind.ESCALATED, sequence=2, at_ms=louder.at_ms + minutes(5))
    told, ended = json.loads(AlertmanagerReceiver("am", Endpoint(Secret("https://am.test"))).render(change))
    assert (told["labels"]["severity"], "endsAt" in told) == ("critical", False)
    assert (ended["labels"]["severity"], ended["endsAt"]) == ("warning", "2026-11-25T05:19:00.000Z")
    assert {**told["labels"], "severity": "warning"} == ended["labels"]
    assert (
        len(json.loads(AlertmanagerReceiver("am", Endpoint(Secret("https://am.test"))).render(a_change(kind=RuleKind.SURGE)))) == 1
    )
