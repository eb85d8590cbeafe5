"""Settings in, what every kafka-python client here is opened with out; the parts of that library which are not public stay here.

kafka-python is pinned below 3.1, because its public interface can neither wait for fresh metadata in bounded time nor name a
topic's id.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import (
    KafkaConfigurationError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from kafka.net.compat import KafkaNetClient

from monitor.config import KafkaSettings, read_secret
from monitor.errors import MissingCodec, SourceError, SourceUnavailable

CODECS: Final[Mapping[str, str]] = {
    "lz4": "lz4",
    "zstandard": "zstandard",
    "snappy": "python-snappy",
    "crc32c": "crc32c",
}
"""Modules that must be there, and the packages that bring them."""

MAX_MESSAGE_BYTES: Final = 67_108_864

_NO_TOPIC_ID: Final = 0

Client = TypeVar("Client")


def pin_logging() -> None:
    """Keeps kafka-python's loggers at INFO or above, whatever was configured: at DEBUG it writes passwords and news texts."""
    for name in ["kafka", *logging.root.manager.loggerDict]:
        if name == "kafka" or name.startswith("kafka."):
            logger = logging.getLogger(name)
            if name == "kafka" or logger.level != logging.NOTSET:
                logger.setLevel(max(logger.level, logging.INFO))


def check_codecs(find: Callable[[str], object | None] = importlib.util.find_spec) -> None:
    """Raises MissingCodec that names every missing package: one batch in a codec that is missing would block its partition."""
    missing = [package for module, package in CODECS.items() if find(module) is None]
    if missing:
        raise MissingCodec(
            f"not installed: {', '.join(missing)}; a batch compressed so could not be read, and would block its partition"
        )


def milliseconds(duration: timedelta) -> int:
    """A duration as kafka-python wants it."""
    return duration // timedelta(milliseconds=1)


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """What every client is told about how to reach the cluster. Raises ConfigurationError when a secret's file cannot be read."""
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "request_timeout_ms": milliseconds(settings.request_timeout),
        "bootstrap_timeout_ms": milliseconds(settings.request_timeout),
        "reconnect_backoff_max_ms": 5_000,
        # A recreated topic, and partitions that were added, have to be noticed while they are young.
        "metadata_max_age_ms": 10_000,
        "allow_auto_create_topics": False,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        options |= _tls_options(settings)
    if settings.security_protocol.startswith("SASL"):
        options |= _sasl_options(settings)
    return options


def _tls_options(settings: KafkaSettings) -> dict[str, Any]:
    files = {
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    options: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    if settings.ssl_key_password is not None:
        options["ssl_password"] = settings.ssl_key_password.get_secret_value()
    return options


def _sasl_options(settings: KafkaSettings) -> dict[str, Any]:
    password = read_secret(settings.sasl_password, settings.sasl_password_file)
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": None if password is None else password.get_secret_value(),
    }


def open_client(make: Callable[..., Client], options: Mapping[str, Any]) -> tuple[Client, KafkaNetClient]:
    """A connected client made by `make(**options)`, and the network client under it.

    Raises SourceUnavailable when the cluster does not answer within `bootstrap_timeout_ms`, SourceError when it cannot be used so.
    """
    opened: list[KafkaNetClient] = []

    def make_network_client(**configs: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**configs))
        return opened[-1]

    try:
        return make(**options, kafka_client=make_network_client), opened[-1]
    except (KafkaError, OSError, ValueError) as error:
        # A client that fails to open leaves its network thread running.
        for network_client in opened:
            network_client.close()
        servers = ", ".join(options["bootstrap_servers"])
        if isinstance(error, KafkaConfigurationError | OSError | ValueError):
            raise SourceError(f"Kafka at {servers} cannot be used with these settings: {error}") from error
        raise SourceUnavailable(f"Kafka at {servers} does not answer: {describe(error)}") from error


def open_producer(settings: KafkaSettings, topic: str) -> KafkaProducer:
    """A producer for a topic that exists: idempotent, and content only when all replicas in sync have a message.

    Raises SourceError when there is no such topic, SourceUnavailable when the cluster does not answer, MissingCodec,
    ConfigurationError for a secret that cannot be read.
    """
    check_codecs()
    pin_logging()
    ask_for_topics(settings, [topic])
    request_ms = milliseconds(settings.request_timeout)
    options = connection_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": "lz4",
        "linger_ms": 20,
        "batch_size": 131_072,
        "max_request_size": MAX_MESSAGE_BYTES,
        "delivery_timeout_ms": 2 * request_ms,
        "max_block_ms": request_ms,
        "metrics_enabled": False,
    }
    producer, _ = open_client(KafkaProducer, options)
    return producer


def close_producer(producer: KafkaProducer, wait_s: float) -> None:
    """Lets go of a producer: what it has not sent within `wait_s` it never sends."""
    try:
        producer.close(timeout=wait_s)
    except KafkaError:
        # The public call gives up here, and its thread would go on sending.
        producer._sender.force_close()  # noqa: SLF001 (the public call does not get so far)


def ask_for_topics(settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Raises SourceError that names every topic which does not exist, SourceUnavailable when the cluster does not answer.

    A client of its own asks: the thread of a producer cannot be asked from outside.
    """
    options = connection_options(settings)
    del options["allow_auto_create_topics"]
    admin, client = open_client(KafkaAdminClient, options)
    try:
        require_topics(client, topics, settings.bootstrap_servers, milliseconds(settings.request_timeout))
    finally:
        admin.close()


def describe(error: BaseException) -> str:
    """An error as one short line. kafka-python puts no secret into a message."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}"[:300]


def refresh_metadata(client: KafkaNetClient, timeout_ms: int) -> None:
    """Asks the cluster for its topics now. Raises KafkaError, a KafkaTimeoutError after `timeout_ms`."""
    manager = client._manager  # noqa: SLF001 (the public call waits without a limit)
    manager.run(manager.wait_for, client.cluster.request_update(), timeout_ms)


def require_topics(client: KafkaNetClient, topics: Iterable[str], servers: Iterable[str], timeout_ms: int) -> None:
    """Raises SourceError that names every topic which does not exist, SourceUnavailable when the cluster does not say."""
    wanted = list(topics)
    missing = wanted
    for topic in wanted:
        client.cluster.add_topic(topic)
    # kafka-python may take the answer to a question from before for that to ours: only a second one is surely ours.
    for _ in range(2):
        try:
            refresh_metadata(client, timeout_ms)
        except UnknownTopicOrPartitionError:
            pass
        except TopicAuthorizationFailedError as error:
            raise SourceError(f"not allowed to use {', '.join(wanted)}: grant DESCRIBE, and READ or WRITE") from error
        except KafkaError as error:
            raise SourceUnavailable(f"the topics could not be listed: {describe(error)}") from error
        missing = [topic for topic in wanted if client.cluster.partitions_for_topic(topic) is None]
        if not missing:
            return
    server = next(iter(servers))
    commands = "".join(
        f"\n  kafka-topics.sh --bootstrap-server {server} --create --topic {topic} --partitions 6" for topic in missing
    )
    raise SourceError(f"no such topic: {', '.join(missing)}. Topics are not made by using them; create with{commands}")


def topic_id(client: KafkaNetClient, topic: str) -> str:
    """The id that the cluster gave to this topic when it was created (Kafka 2.8 and later); "" where there is none."""
    known = client.cluster.topic_id(topic)
    return "" if known is None or known.int == _NO_TOPIC_ID else str(known)
