"""Messages in, stored in a Kafka topic before the call returns: what others can build on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kafka.errors import KafkaError

from monitor.config import KafkaSettings
from monitor.errors import SourceUnavailable
from monitor.sources.kafka_client import close_producer, describe, milliseconds, open_producer

_CLOSE_S: Final = 5.0


class KafkaTopic:
    """One topic that messages are appended to, by an idempotent producer that waits for all replicas in sync.

    Raises SourceError when there is no such topic, or it may not be written to, SourceUnavailable when the cluster does not answer,
    MissingCodec, ConfigurationError for a secret that cannot be read.
    """

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._name = name
        self._answer_s = 3 * milliseconds(settings.request_timeout) / 1_000
        self._producer = open_producer(settings, name)

    def append(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns once every message, a key and a value, is stored, those of one key in their order.

        Raises SourceUnavailable when one of them is not known to be stored: then some of them may be. Close the topic after that.
        """
        try:
            outcomes = [self._producer.send(self._name, value, key) for key, value in messages]
            self._producer.flush(self._answer_s)
        except KafkaError as error:
            raise SourceUnavailable(f"{self._name} took not all: {describe(error)}") from error
        failures = [outcome.exception for outcome in outcomes if not outcome.succeeded()]
        if failures:
            raise SourceUnavailable(
                f"{self._name} took {len(messages) - len(failures)} of {len(messages)}: {describe(failures[0])}"
            )

    def close(self) -> None:
        """Lets go of the connection: nothing is sent after that."""
        close_producer(self._producer, _CLOSE_S)
