"""A Kafka with one listener more, which its clients reach through a proxy only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.proxy import Proxy, proxying
from tests.kafka.server import KafkaAbsent, LocalKafka, free_port, prepare_jars


@dataclass
class ProxiedKafka(LocalKafka):
    """A broker that tells the clients of its third listener to come through `outer_port`."""

    inner_port: int = field(default_factory=free_port)
    outer_port: int = field(default_factory=free_port)

    @property
    def proxied_bootstrap(self) -> str:
        """The address of the proxy."""
        return f"127.0.0.1:{self.outer_port}"

    def _properties(self) -> str:
        more = {
            "listeners=": f",PROXIED://127.0.0.1:{self.inner_port}",
            "advertised.listeners=": f",PROXIED://127.0.0.1:{self.outer_port}",
            "listener.security.protocol.map=": ",PROXIED:PLAINTEXT",
        }
        lines = super()._properties().splitlines()
        return "\n".join(line + next((text for name, text in more.items() if line.startswith(name)), "") for line in lines) + "\n"


@contextmanager
def proxied_kafka(folder: Path) -> Iterator[tuple[ProxiedKafka, Proxy]]:
    """A running broker and the proxy in front of it. Raises KafkaAbsent where there can be none."""
    if shutil.which("java") is None:
        raise KafkaAbsent("no Java")
    server = ProxiedKafka(folder=folder, jars=prepare_jars())
    server.start()
    try:
        with proxying(server.inner_port, server.outer_port) as proxy:
            yield server, proxy
    finally:
        server.kill()
