"""A configuration in, everything that it names out, loaded and checked, without a connection to anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from alerts.types import ThresholdRule
from alerts.webhook import Receiver
from monitor.classifier.checkpoint import read_labels
from monitor.config import ReceiverSettings, Settings, read_secret
from monitor.errors import ConfigurationError
from monitor.rules_file import load_rules
from monitor.watchlist import WatchList, load_watchlist

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Checked:
    """What the files named by a configuration say."""

    watchlist: WatchList
    rules: tuple[ThresholdRule, ...]
    receivers: tuple[Receiver, ...]



def check(settings: Settings) -> Checked:
    """Loads the watch list, the rules, the receivers' secrets and the checkpoint's labels.

    Raises ConfigurationError with every fault of every file, ModelError when the checkpoint cannot be used.
    """
    problems: list[str] = []

    def collect(load: Callable[[], _Found], otherwise: _Found) -> _Found:
        try:
            return load()
        except ConfigurationError as error:
            problems.extend(f"{error.origin}: {problem}" for problem in error.problems)
            return otherwise

    watchlist = collect(lambda: _watchlist(settings), WatchList(()))
    receivers = tuple(
        receiver for item in settings.receivers if (receiver := collect(lambda item=item: build_receiver(item), None)) is not None
    )
    names = frozenset(receiver.name for receiver in settings.receivers)
    topics = frozenset(read_labels(settings.model).topics)
    rules = collect(lambda: _rules(settings, watchlist, topics, names), ())
    collect(settings.store.database_url, "")
    if problems:
        raise ConfigurationError("the configuration", problems)
    return Checked(watchlist, rules, receivers)
