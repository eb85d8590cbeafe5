"""A configuration in, everything that it names out, loaded and checked, without a connection to anything."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from alerts.channels.posting import Endpoint
from alerts.channels.protocol import Receiver
from alerts.channels.webhook import WebhookReceiver
from alerts.signature import Secret, read_secrets
from alerts.types import Rule
from monitor.classifier.load import check_model
from monitor.config import ReceiverSettings, Settings, read_secret
from monitor.errors import ConfigurationError
from monitor.rules_file import load_rules
from monitor.watchlist import WatchList, load_watchlist

_Found = TypeVar("_Found")


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


def build_receiver(settings: ReceiverSettings) -> Receiver:
    """A receiver with its URL and secrets read. Raises ConfigurationError that lists every fault of it."""
    url = read_secret(settings.url, settings.url_file)
    secret = read_secret(settings.secret, settings.secret_file)
    endpoint = Endpoint(
        url=Secret("" if url is None else url.get_secret_value()),
        allow_private_addresses=settings.allow_private_addresses,
        allow_http=settings.allow_http,
        timeout_s=settings.timeout.total_seconds(),
        retry_for_ms=round(settings.retry_for.total_seconds() * 1000),
    )
    return WebhookReceiver(settings.name, endpoint, read_secrets("" if secret is None else secret.get_secret_value()))


def _watchlist(settings: Settings) -> WatchList:
    return WatchList() if settings.watchlist_file is None else load_watchlist(settings.watchlist_file)


def _rules(settings: Settings, entities: Collection[str] | None, topics: Collection[str]) -> tuple[Rule, ...]:
    if settings.rules_file is None:
        return ()
    names = {receiver.name for receiver in settings.receivers}
    return load_rules(settings.rules_file, entities=entities, topics=topics, receivers=names)
