"""Instances under random faults for a long time in, a table of what was lost, doubled and told otherwise out.

`python -m tests.faults.soak [--seed N] [--kills N] [--families NAME ...] [--records N] [--json FILE]`. The seed is printed; with it
and `--families` a part is repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from kafka.admin import NewPartitions
from kafka.errors import TopicAlreadyExistsError

from monitor.errors import BellwetherError
from monitor.types import MINUTE_MS
from tests.end_to_end.processes import RUNNING, until
from tests.end_to_end.stream import Line, stream
from tests.faults.brokers import ProxiedKafka, proxied_kafka
from tests.faults.cluster import LEASE_S, OPENED, SESSION_S, Cluster, Instance, new_topic, send, until_told
from tests.faults.mortal import POINTS, Fault
from tests.faults.oracles import (
    Told,
    alert_truth,
    books,
    clean_log,
    conservation,
    consumed,
    delivery_truth,
    recovery_s,
    told,
)
from tests.faults.proxy import Proxy
from tests.kafka.server import LocalKafka
from tests.postgres.server import LocalPostgres, PostgresAbsent
from tests.postgres.server import start_local as start_postgres
from tests.receiver import Receiver, receiving

PARTITIONS: Final = 6
INSTANCES: Final = 3
KILLS_A_RUN: Final = 40
_LOOK_S: Final = 0.2
_TRIES: Final = 5
PATIENCE_S: Final = 900.0
"""Nothing takes so long unless it never comes; a busy machine may take a while."""
PAUSE_MS: Final = 30 * MINUTE_MS
"""So much stream time lies between what is read during the faults and what is published when they are over: the wall clock may
carry stream time on while nothing comes, and must not overtake what comes next."""


@dataclass
class Run:
    """What one storm did and what it left."""

    family: str
    number: int
    faults: dict[str, int] = field(default_factory=dict)
    met_records: int = 0
    lost: int = 0
    doubled: int = 0
    recovery_s: float | None = None
    told_s: float = 0.0
    seconds: float = 0.0
    incidents: int = 0
    equal: bool = False
    wrong: list[str] = field(default_factory=list)

    @property
    def number_of_faults(self) -> int:
        """Of all kinds together."""
        return sum(self.faults.values())


@dataclass(frozen=True)
class Truth:
    """The lines that are there during the faults, those that come when they are over, and what a calm instance tells of both."""

    early: list[Line]
    late: list[Line]
    told: Told

    @property
    def lines(self) -> list[Line]:
        """All of them."""
        return [*self.early, *self.late]


@dataclass(frozen=True)
class Servers:
    """The broker with its proxy and the database, which storms may stop and must start again."""

    kafka: ProxiedKafka
    proxy: Proxy
    postgres: LocalPostgres


@dataclass
class Storm:
    """One cluster in the middle of its faults."""

    servers: Servers
    cluster: Cluster
    instances: list[Instance]
    early: Sequence[Line]
    chance: random.Random
    run: Run
    kills: int
    read: Callable[[], int]

    def fault(self, name: str) -> None:
        """Notes a fault, and whether there was something to read when it happened."""
        self.run.faults[name] = self.run.faults.get(name, 0) + 1
        self.run.met_records += self.read() < len(self.early)


# --- the faults --------------------------------------------------------------------------------


def kill(storm: Storm) -> None:
    """Family 1: kill -9 at random times and at named points, all instances at once, each started again at once."""
    plans = {one.folder: _plan(storm, one) for one in storm.instances}
    while storm.run.number_of_faults < storm.kills:
        time.sleep(_LOOK_S)
        for one in storm.instances:
            plan = plans[one.folder]
            if one.ended is None and not plan.is_due(one):
                continue
            if one.ended is None:
                one.kill()
                storm.fault("at a random time")
            elif one.ended == -signal.SIGKILL:
                storm.fault(plan.point)
            else:
                storm.run.wrong.append(f"{one.folder.name} ended by itself with {one.ended}")
            plans[one.folder] = _plan(storm, one)
    for one in storm.instances:
        _renew(one)


@dataclass
class Plan:
    """How an instance dies: at a point, or else `after_claim_s` seconds after it had partitions, or `limit_s` at the latest."""

    point: str
    after_claim_s: float
    claims: int
    limit_s: float

    def is_due(self, one: Instance) -> bool:
        """Whether its time has come."""
        now_s = time.monotonic()
        if _claims(one) > self.claims:
            # From the claim on it reads: a slow start must not use up the time in which there is something to lose.
            self.claims = sys.maxsize
            self.limit_s = now_s + self.after_claim_s
        return now_s >= self.limit_s


def _claims(one: Instance) -> int:
    return one.log.count('"partitions.claimed"')


def _plan(storm: Storm, one: Instance) -> Plan:
    """Starts an instance that is to die; how."""
    chance = storm.chance
    if one.process is not None and one.ended is None:
        one.kill()
    claims, now_s = _claims(one), time.monotonic()
    draw = chance.random()
    if draw < 0.6:
        point = chance.choice(list(POINTS))
        one.begin(Fault(point, chance.choice((1, 1, 2, 5))))
        return Plan(point, chance.uniform(5, 20), claims, now_s + 60)
    one.begin()
    # One in ten dies somewhere in its start.
    limit_s = chance.uniform(0.5, 10) if draw > 0.9 else 60
    return Plan("at a random time", chance.uniform(0, 6), claims, now_s + limit_s)


def _renew(one: Instance) -> None:
    """Lets an instance without a fault follow one with."""
    one.kill()
    one.begin()


def stall(storm: Storm) -> None:
    """Family 2: SIGSTOP for longer than session and lease last."""
    for _ in range(3):
        time.sleep(storm.chance.uniform(0.5, 3))
        one = storm.chance.choice(storm.instances)
        storm.fault("stall")
        one.process.send_signal(signal.SIGSTOP)
        time.sleep(max(SESSION_S, LEASE_S) + 3)
        one.process.send_signal(signal.SIGCONT)


def broker(storm: Storm) -> None:
    """Family 4: the broker is stopped or killed, and started again."""
    for number in range(3):
        time.sleep(storm.chance.uniform(1, 4))
        storm.fault("broker killed" if number % 2 else "broker stopped")
        (storm.servers.kafka.kill if number % 2 else storm.servers.kafka.stop)()
        time.sleep(storm.chance.uniform(0, 12))
        start(storm.servers.kafka)


def network(storm: Storm) -> None:
    """Family 5: what can happen to the connections between instances and broker."""
    proxy = storm.servers.proxy
    deeds: list[tuple[str, Callable[[], None], float]] = [
        ("reset", proxy.reset, 0.5),
        ("half open", proxy.half_open, 3),
        ("black hole", proxy.black_hole, 10),
        ("answers lost", proxy.swallow_answers, 10),
        ("requests lost", proxy.swallow_requests, 5),
        ("refused", lambda: (proxy.refuse(), proxy.reset())[0], 6),
        ("two seconds late", lambda: setattr(proxy, "latency_s", 2.0), 12),
    ]
    storm.chance.shuffle(deeds)
    for name, deed, lasts_s in deeds:
        time.sleep(storm.chance.uniform(0.5, 3))
        storm.fault(name)
        deed()
        time.sleep(lasts_s)
        proxy.heal()


def growth(storm: Storm) -> None:
    """Family 6: partitions are added while the topic is read."""
    time.sleep(3)
    storm.fault("partitions added")
    admin = storm.servers.kafka.admin()
    admin.create_partitions({storm.cluster.topic: NewPartitions(2 * PARTITIONS)})
    admin.close()


def recreation(storm: Storm) -> None:
    """Family 6: the topic is deleted when all was read, and made anew under its name."""
    until(lambda: storm.read() >= len(storm.early), PATIENCE_S, "all saved before the topic is deleted")
    storm.fault("topic recreated")
    kafka, topic = storm.servers.kafka, storm.cluster.topic
    kafka.delete_topic(topic)
    until(lambda: _made(kafka, topic), PATIENCE_S, "the topic made anew")


def _made(kafka: ProxiedKafka, topic: str) -> bool:
    """Whether the topic is there again; the deletion of the old one takes its time."""
    try:
        kafka.create_topic(topic, partitions=PARTITIONS, config={"retention.ms": "-1"})
    except TopicAlreadyExistsError:
        time.sleep(0.2)
        return False
    return True


def database(storm: Storm) -> None:
    """Family 10: PostgreSQL is stopped or killed, and started again."""
    for number in range(4):
        time.sleep(storm.chance.uniform(1, 4))
        storm.fault("database killed" if number % 2 else "database stopped")
        (storm.servers.postgres.kill if number % 2 else storm.servers.postgres.stop)()
        time.sleep(storm.chance.uniform(0, 8))
        start(storm.servers.postgres)


def scale(storm: Storm) -> None:
    """Family 11: one instance, eight, one."""
    for one in storm.instances[1:]:
        one.kill()
    more = [storm.cluster.instance(f"more-{number}") for number in range(7)]
    storm.fault("to eight")
    for one in more:
        one.begin()
        time.sleep(storm.chance.uniform(0, 0.5))
    until(lambda: all(one.events("daemon.started") for one in more), PATIENCE_S, "eight instances")
    time.sleep(storm.chance.uniform(2, 8))
    storm.fault("to one")
    for number, one in enumerate(more):
        one.kill() if number % 2 else one.process.send_signal(signal.SIGTERM)
    for one in more:
        one.until_ended(PATIENCE_S)
    storm.instances[:] = storm.instances[:1]


FAMILIES: Final[dict[str, Callable[[Storm], None]]] = {
    "1 kill -9": kill,
    "2 stalled": stall,
    "4 broker": broker,
    "5 network": network,
    "6 partitions added": growth,
    "6 topic recreated": recreation,
    "10 database": database,
    "11 scale 1-8-1": scale,
}


# --- one run -----------------------------------------------------------------------------------


def split(number: int) -> tuple[list[Line], list[Line]]:
    """The lines that are there during the faults, and those that come after, when a pause of stream time has passed."""
    lines = list(stream(number))
    cut = number * 85 // 100
    resume_ms = lines[cut].time_ms + PAUSE_MS
    late = [line for line in lines if line.time_ms >= resume_ms]
    # A repetition must repeat something that was published.
    while late[0].outcome != "counted":
        late.pop(0)
    return lines[:cut], late


def run_once(run: Run, servers: Servers, folder: Path, truth: Truth, options: Options) -> None:
    """One cluster through one storm; `run` says afterwards what came of it."""
    early, late = truth.early, truth.late
    begun_s = time.monotonic()
    with receiving() as receiver, _everything_ended():
        bootstrap = servers.kafka.proxied_bootstrap if run.family.startswith("5") else servers.kafka.bootstrap
        topic, url = new_topic(servers.kafka, PARTITIONS), servers.postgres.create_database()
        cluster = Cluster(folder, bootstrap, topic, url, receiver.url, batch=options.batch)
        send(servers.kafka, cluster.topic, early)
        engine = cluster.engine()
        # Two of them have a fixed place in the group, so that both ways to come back are met.
        instances = [cluster.instance(f"instance-{number}", static=number > 0) for number in range(INSTANCES)]
        for one in instances:
            one.begin()
        until(lambda: consumed(engine) > 0, PATIENCE_S, "the first records saved")
        storm = Storm(servers, cluster, instances, early, options.chance, run, options.kills, lambda: consumed(engine))
        FAMILIES[run.family](storm)
        run.recovery_s = recovery_s(lambda: consumed(engine), PATIENCE_S) if consumed(engine) < len(early) else None
        until(lambda: consumed(engine) >= len(early), PATIENCE_S, "all saved that was there during the faults")
        send(servers.kafka, cluster.topic, late)
        if run.recovery_s is None:
            run.recovery_s = recovery_s(lambda: consumed(engine), PATIENCE_S)
        told_from_s = time.monotonic()
        until_told(engine, truth.lines, PATIENCE_S)
        run.told_s = time.monotonic() - told_from_s
        for one in storm.instances:
            code = one.terminate()
            if code != 0:
                run.wrong.append(f"{one.folder.name} ended with {code}")
        _judge(run, cluster, truth, receiver)
    run.seconds = time.monotonic() - begun_s


def _judge(run: Run, cluster: Cluster, truth: Truth, receiver: Receiver) -> None:
    engine, lines = cluster.engine(), truth.lines
    outcomes = Counter(line.outcome for line in lines)
    held = books(engine)
    run.lost, run.doubled = held.lost(outcomes), held.doubled(outcomes)
    run.wrong += conservation(engine, lines)
    found = told(engine)
    run.incidents = len(found.incidents)
    false = alert_truth(truth.told, found) + delivery_truth(truth.told, receiver.received, receiver.unverified)
    run.equal = not false
    run.wrong += false
    for log in sorted(cluster.folder.glob("*/bellwether.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        run.wrong += [f"{log.parent.name}: {fault}" for fault in clean_log(text, ended_at_once=True)]


@contextmanager
def _everything_ended() -> Iterator[None]:
    """Whatever happens, no instance outlives its run, and no connection."""
    try:
        yield
    finally:
        while RUNNING:
            process = RUNNING.pop()
            process.kill()
            process.wait()
        while OPENED:
            OPENED.pop().dispose()


def find_truth(servers: Servers, folder: Path, lines: Sequence[Line]) -> Told:
    """What one instance on Kafka and PostgreSQL tells that nothing happens to."""
    with receiving() as receiver, _everything_ended():
        topic = new_topic(servers.kafka, PARTITIONS)
        cluster = Cluster(folder, servers.kafka.bootstrap, topic, servers.postgres.create_database(), receiver.url)
        send(servers.kafka, topic, lines)
        calm = cluster.instance("calm")
        calm.begin()
        engine = cluster.engine()
        until_told(engine, lines, PATIENCE_S)
        assert calm.terminate() == 0, calm.log[-3000:]
        assert conservation(engine, lines) == []
        return told(engine)


# --- the whole ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    seed: int
    chance: random.Random
    kills: int
    batch: int


def table(runs: Sequence[Run]) -> str:
    """The runs by family, as a table of Markdown."""
    lines = [
        "| family | runs | faults | with records unread | lost | doubled | recovery s, median/max | incidents equal | findings |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(run.family for run in runs):
        own = [run for run in runs if run.family == family]
        times = [run.recovery_s for run in own if run.recovery_s is not None]
        shown = f"{statistics.median(times):.1f} / {max(times):.1f}" if times else "-"
        cells = [
            family,
            len(own),
            sum(run.number_of_faults for run in own),
            sum(run.met_records for run in own),
            sum(run.lost for run in own),
            sum(run.doubled for run in own),
            shown,
            f"{sum(run.equal for run in own)} of {len(own)}",
            sum(len(run.wrong) for run in own),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def points(runs: Sequence[Run]) -> str:
    """How often each fault was met, as a table of Markdown."""
    met: Counter[str] = Counter()
    for run in runs:
        met.update(run.faults)
    return "\n".join(["| fault | times |", "|---|---|", *(f"| {name} | {number} |" for name, number in sorted(met.items()))])


def soak(names: Sequence[str], kills: int, records: int, options: Options, show: Callable[[str, Sequence[Run]], None]) -> list[Run]:
    """Every family once, and kills until there were `kills`; `show` hears of each run with all that ended."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as name, proxied_kafka(Path(name) / "kafka") as (kafka, proxy):
        # PostgreSQL runs as another user than root.
        Path(name).chmod(0o755)
        postgres = start_postgres(Path(name) / "postgres")
        try:
            servers = Servers(kafka, proxy, postgres)
            early, late = split(records)
            truth = Truth(early, late, find_truth(servers, Path(name) / "calm", [*early, *late]))
            held = truth.told
            show(f"{len(truth.lines)} records hold {len(held.incidents)} incidents in {len(held.changes)} changes", runs)
            for family in names:
                wanted = -(-kills // options.kills) if FAMILIES[family] is kill else 1
                for number in range(wanted):
                    run = Run(family, number)
                    runs.append(run)
                    try:
                        run_once(run, servers, Path(name) / f"run-{len(runs)}", truth, options)
                    except (AssertionError, BellwetherError) as error:
                        run.wrong.append(f"the run broke off: {error}")
                        _mend(servers)
                    show(
                        f"{family} #{number}: {run.number_of_faults} faults, {run.lost} lost, {run.doubled} doubled, "
                        f"{run.seconds:.0f} s{''.join(f'{os.linesep}    {fault}' for fault in run.wrong[:8])}",
                        runs,
                    )
        finally:
            postgres.kill()
    return runs


def start(server: LocalKafka | LocalPostgres) -> None:
    """Starts a server that was stopped; a machine with much else to do may need more than one try."""
    for _ in range(_TRIES):
        try:
            return server.start()
        except (RuntimeError, PostgresAbsent):
            continue
    raise AssertionError(f"{type(server).__name__} does not start again")


def _mend(servers: Servers) -> None:
    """Whatever a run that broke off has left stopped is started."""
    servers.proxy.heal()
    for server in (servers.kafka, servers.postgres):
        if server.process is None:
            start(server)


def main() -> int:
    """0 when nothing was lost, doubled or told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10**9))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--families", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--records", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=16, help="documents a batch: small ones make many transactions to die in")
    parser.add_argument("--json", type=Path, default=Path(".make/soak.json"))
    given = parser.parse_args()
    print(f"--seed {given.seed} repeats it", flush=True)
    options = Options(given.seed, random.Random(given.seed), min(KILLS_A_RUN, given.kills), given.batch)

    def show(line: str, ended: Sequence[Run]) -> None:
        print(line, flush=True)
        # Written after each run: what a machine does not live to finish is not lost.
        given.json.write_text(json.dumps({"seed": given.seed, "runs": [asdict(run) for run in ended]}, indent=1), encoding="utf-8")

    runs = soak(given.families, given.kills, given.records, options, show)
    print(table(runs), points(runs), sep="\n\n")
    return int(any(run.wrong for run in runs))


if __name__ == "__main__":
    sys.exit(main())
