"""A real Apache Kafka (one node, KRaft) on free loopback ports: jars by Maven; started, stopped and killed by process id.

`python -m tests.kafka.server prepare` fetches the jars.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import NewTopic

VARIABLE = "BELLWETHER_TEST_KAFKA"
POM = Path(__file__).with_name("pom.xml")
JARS = Path(__file__).parents[2] / ".make" / "kafka-libs"
START_S = 90.0
STOP_S = 30.0
USER, PASSWORD = "reader", "reader-password-of-the-tests"


class KafkaAbsent(Exception):
    """There is no Kafka to test with; the message says what is missing."""


def prepare_jars(folder: Path = JARS) -> Path:
    """The folder with the broker's jars, fetched by Maven when it is not there. Raises KafkaAbsent."""
    if list(folder.glob("kafka_2.13-*.jar")):
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaAbsent(f"no jars in {folder} and no Maven to fetch them (on Debian: apt-get install maven)")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    done = subprocess.run([*command, f"-DoutputDirectory={partial}"], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise KafkaAbsent(f"Maven could not fetch the jars: {done.stdout.strip()[-500:]}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Kafka:
    """A broker that somebody else runs: topics can be made and shortened, but it cannot be stopped."""

    bootstrap: str

    def create_topic(self, name: str | None = None, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """The name of a new topic (an invented one without `name`) whose partitions all have a leader."""
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        with closing(self.admin()) as admin:
            topic = NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=dict(config or {}))
            admin.create_topics([topic], wait_for_metadata=True)
        return name

    def delete_topic(self, name: str) -> None:
        """Deletes a topic."""
        with closing(self.admin()) as admin:
            admin.delete_topics([name])

    def delete_records(self, topic: str, before_offset: int, partition: int = 0) -> None:
        """Makes `before_offset` the first offset that the partition holds, as retention does."""
        with closing(self.admin()) as admin:
            admin.delete_records({TopicPartition(topic, partition): before_offset})

    def admin(self) -> KafkaAdminClient:
        """A client for administration, to be closed."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)


@dataclass
class LocalKafka(Kafka):
    """A broker of our own, in `folder`, on ports that stay the same over restarts."""

    folder: Path
    jars: Path
    bootstrap: str = field(init=False)
    port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    sasl_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """Where the broker writes what it does."""
        return self.folder / "kafka.log"

    @property
    def sasl_bootstrap(self) -> str:
        """The listener that wants `USER` and `PASSWORD` by SASL/PLAIN."""
        return f"127.0.0.1:{self.sasl_port}"

    def start(self) -> None:
        """Formats the data folder once, starts the broker, returns when it accepts connections. Raises RuntimeError."""
        properties = self.folder / "server.properties"
        if not properties.exists():
            properties.write_text(self._properties(), encoding="utf-8")
            # One that began with "-" would be taken for an option.
            cluster = "b" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
            self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)).wait(START_S)
        self.process = self._java("kafka.Kafka", str(properties))
        self._wait_until_open()

    def stop(self) -> None:
        """Shuts the broker down in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the broker at once (SIGKILL); its data stay as they are."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Starts the stopped or killed broker on the same ports and data."""
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info"]
        with self.log.open("ab") as log:
            return subprocess.Popen(["java", *options, "-cp", f"{self.jars}/*", *arguments], stdout=log, stderr=log)

    def _wait_until_open(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"Kafka did not start; the end of {self.log}:\n{self.log.read_text(errors='replace')[-3_000:]}")

    def _properties(self) -> str:
        jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},SASL://127.0.0.1:{self.sasl_port}"
        return "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}",
                f"listeners={listeners},CONTROLLER://127.0.0.1:{self.controller_port}",
                f"advertised.listeners={listeners}",
                "controller.listener.names=CONTROLLER",
                "inter.broker.listener.name=PLAINTEXT",
                "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT",
                "listener.name.sasl.sasl.enabled.mechanisms=PLAIN",
                f"listener.name.sasl.plain.sasl.jaas.config={jaas}",
                f"log.dirs={self.folder / 'data'}",
                "auto.create.topics.enable=false",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=1",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.num.partitions=1",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "group.min.session.timeout.ms=1000",
                "",
            ]
        )


def start_local(folder: Path) -> LocalKafka:
    """A running broker of our own in `folder`. Raises KafkaAbsent when Java or the jars are missing."""
    if shutil.which("java") is None:
        raise KafkaAbsent("no Java (on Debian: apt-get install openjdk-17-jre-headless)")
    server = LocalKafka(folder=folder, jars=prepare_jars())
    server.start()
    return server


if __name__ == "__main__":
    if sys.argv[1:] != ["prepare"]:
        sys.exit("usage: python -m tests.kafka.server prepare")
    try:
        print(prepare_jars())
    except KafkaAbsent as absent:
        sys.exit(str(absent))
