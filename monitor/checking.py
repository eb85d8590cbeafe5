"""A configuration in, everything that it names out, loaded and checked, without a connection to anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pydantic import SecretStr

from alerts.catalogue import Language
from alerts.channels.alertmanager import AlertmanagerReceiver
from alerts.channels.dingtalk import DingTalkReceiver
from alerts.channels.feishu import FeishuReceiver
from alerts.channels.mail import MailReceiver
from alerts.channels.pagerduty import PagerDutyReceiver
from alerts.channels.posting import Endpoint
from alerts.channels.protocol import Receiver
from alerts.channels.slack import SlackReceiver
from alerts.channels.smtp import MailServer, Security
from alerts.channels.teams import TeamsReceiver
from alerts.channels.webhook import BodyFormat, WebhookReceiver
from alerts.channels.wecom import WeComReceiver
from alerts.notice import Voice
from alerts.signature import Secret, read_secrets
from alerts.types import Rule
from monitor.classifier.load import check_model
from monitor.config import (
    AlertmanagerSettings,
    AnyReceiverSettings,
    DingTalkSettings,
    FeishuSettings,
    MailSettings,
    PagerDutySettings,
    PostedReceiverSettings,
    Settings,
    SlackSettings,
    TeamsSettings,
    WebhookSettings,
    WeComSettings,
    read_secret,
)
from monitor.errors import ConfigurationError
from monitor.rules_file import load_rules
from monitor.severe_events import shipped_events
from monitor.watchlist import WatchList, load_watchlist

_Found = TypeVar("_Found")

_CHATS: Final[Mapping[str, Callable[[str, Endpoint, Voice], Receiver]]] = {
    "slack": SlackReceiver,
    "teams": TeamsReceiver,
    "wecom": WeComReceiver,
}
_BOTS: Final[Mapping[str, Callable[[str, Endpoint, Secret | None, Voice], Receiver]]] = {
    "feishu": FeishuReceiver,
    "dingtalk": DingTalkReceiver,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What the files named by a configuration say."""

    watchlist: WatchList
    rules: tuple[Rule, ...]
    receivers: tuple[Receiver, ...]


def check(settings: Settings, *, fetch: bool = False) -> Checked:
    """Loads the watch list, the rules, the receivers' secrets and the checkpoints' labels.

    Nothing is asked of the network, unless `fetch` says that a checkpoint on the hub may be fetched. Raises ConfigurationError with
    every fault of every file, ModelError when a checkpoint cannot be used.
    """
    problems: list[str] = []

    def collect(load: Callable[[], _Found]) -> _Found | None:
        try:
            return load()
        except ConfigurationError as error:
            problems.extend(f"{error.origin}: {problem}" for problem in error.problems)
            return None

    topics = check_model(settings.model, fetch=fetch)
    watchlist = collect(lambda: _watchlist(settings))
    receivers = [collect(partial(build_receiver, item)) for item in settings.receivers]
    entities = None if watchlist is None else watchlist.entities.keys()
    rules = collect(lambda: _rules(settings, entities, topics))
    collect(settings.store.database_url)
    if problems or watchlist is None or rules is None:
        raise ConfigurationError("the configuration", problems)
    return Checked(watchlist, rules, tuple(receiver for receiver in receivers if receiver is not None))


def check_topics(settings: Settings) -> list[str]:
    """The topics that are read and written, once Kafka has said that they exist; none without Kafka.

    Raises SourceError that names every topic which does not, SourceUnavailable when Kafka does not answer, ConfigurationError for a
    secret that cannot be read.
    """
    topics = [*settings.source.kafka.topics] if settings.source.kind == "kafka" else []
    if settings.output.topic is not None:
        topics.append(settings.output.topic)
    if topics:
        from monitor.sources.kafka_client import ask_for_topics

        ask_for_topics(settings.source.kafka, topics)
    return topics


def build_receiver(settings: AnyReceiverSettings) -> Receiver:
    """A receiver with its URL and secrets read. Raises ConfigurationError that lists every fault of it."""
    voice = Voice(Language(settings.language), settings.timezone, settings.console_url)
    match settings:
        case WebhookSettings():
            secret = _secret(settings.secret, settings.secret_file)
            secrets = () if secret is None else read_secrets(secret.reveal())
            return WebhookReceiver(settings.name, _endpoint(settings), secrets, voice, BodyFormat(settings.body))
        case AlertmanagerSettings():
            return AlertmanagerReceiver(settings.name, _endpoint(settings), voice, _milliseconds(settings.resend_every))
        case SlackSettings() | TeamsSettings() | WeComSettings():
            return _CHATS[settings.kind](settings.name, _endpoint(settings), voice)
        case FeishuSettings() | DingTalkSettings():
            secret = _secret(settings.secret, settings.secret_file)
            return _BOTS[settings.kind](settings.name, _endpoint(settings), secret, voice)
        case PagerDutySettings():
            routing_key = _secret(settings.routing_key, settings.routing_key_file) or Secret("")
            return PagerDutyReceiver(settings.name, routing_key, _endpoint(settings), voice)
        case MailSettings():
            return MailReceiver(
                settings.name,
                MailServer(settings.host, settings.port, Security(settings.security)),
                settings.sender,
                settings.recipients,
                settings.username,
                _secret(settings.password, settings.password_file),
                voice,
                allow_private_addresses=settings.allow_private_addresses,
                timeout_s=settings.timeout.total_seconds(),
                retry_for_ms=_milliseconds(settings.retry_for),
            )


def _endpoint(settings: PostedReceiverSettings | PagerDutySettings) -> Endpoint:
    if isinstance(settings, PostedReceiverSettings):
        url = _secret(settings.url, settings.url_file) or Secret("")
    else:
        url = Secret(settings.url)
    return Endpoint(
        url=url,
        allow_private_addresses=settings.allow_private_addresses,
        allow_http=settings.allow_http,
        timeout_s=settings.timeout.total_seconds(),
        retry_for_ms=_milliseconds(settings.retry_for),
    )


def _secret(secret: SecretStr | None, file: Path | None) -> Secret | None:
    found = read_secret(secret, file)
    return None if found is None else Secret(found.get_secret_value())


def _milliseconds(span: timedelta) -> int:
    return round(span.total_seconds() * 1_000)


def _watchlist(settings: Settings) -> WatchList:
    return WatchList() if settings.watchlist_file is None else load_watchlist(settings.watchlist_file)


def _rules(settings: Settings, entities: Collection[str] | None, topics: Collection[str]) -> tuple[Rule, ...]:
    if settings.rules_file is None:
        return ()
    names = {receiver.name for receiver in settings.receivers}
    return load_rules(
        settings.rules_file, entities=entities, topics=topics, receivers=names, categories=shipped_events().categories
    )
