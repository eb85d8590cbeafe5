"""However a log is read, by however many instances, with whatever deaths: the same stories, counts and incidents."""

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update

from alerts.judge import Judge
from alerts.types import Comparison, SeriesSelector, Severity, ThresholdRule
from monitor.buckets import fold
from monitor.config import StorySettings
from monitor.judging import Judging
from monitor.leading import Leading
from monitor.metrics import Metrics
from monitor.scoring import score
from monitor.store import lease as leases
from monitor.store.engine import open_engine, reading, writing
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from monitor.store.ledger import Advance, Ledger, Saving
from monitor.store.schema import document, incident, tally
from monitor.store.schema import lease as lease_table
from monitor.stories import Standing, Stories
from monitor.types import (
    ALL_SERIES,
    MINUTE_MS,
    Document,
    Metric,
    Opinion,
    Partition,
    Prediction,
    PublicationStatus,
    SeriesKind,
)
from monitor.watermark import Quiet
from monitor.windows import Windows

BEGIN_MS = 1_772_431_200_000
REACH_MS = 60 * MINUTE_MS
IDLE_MS = 10_000
HOURS_MS = 48 * 3_600_000
RULES = (
    ThresholdRule(
        name="burst",
        metric=Metric.NEGATIVE_STORIES,
        series=SeriesSelector(SeriesKind.ENTITY),
        window_ms=10 * MINUTE_MS,
        comparison=Comparison.AT_LEAST,
        level=2,
        clear_level=1,
        severity=Severity.CRITICAL,
    ),
)
TEXTS = [
    "Regulator fines Halden Bank over lax checks",
    "UPDATE 1-Regulator fines Halden Bank over lax checks, bank sorry",
    "Regulator fines Halden Bank over lax checks in Oslo",
    "Broker cuts Halden Bank to sell on weak capital",
    "Broker cuts Norvik Bank to sell on weak capital",
    "Halden Bank Q2 profit rises 12 pct",
    "Halden Bank Q2 profit rises 40 pct",
]
PARTITIONS = tuple(Partition("news", number) for number in range(3))


def scored(partition, offset, received_ms, text, uri):
    news = Document(
        partition, offset, offset + 1, received_ms, f"urn:{uri}", "1", text, "", "en", "wire", PublicationStatus.USABLE, None,
        entities=tuple(name for name in ("halden", "norvik") if name in text.lower()),
    )  # fmt: skip
    return score([news], [Prediction("fraud", (1.0,), False, Opinion("negative", (0.8, 0.1, 0.1)))], "model")[0]


@st.composite
def logs(draw):
    """The documents of each partition, their times rising, with copies and repetitions across partitions."""
    found = {}
    for partition in PARTITIONS:
        received_ms, found[partition] = BEGIN_MS, []
        steps = draw(
            st.lists(
                st.tuples(st.sampled_from([0, 1, 20_000, MINUTE_MS, 7 * MINUTE_MS]), st.sampled_from(TEXTS), st.integers(0, 30)),
                max_size=8,
            )
        )
        for offset, (step_ms, text, uri) in enumerate(steps):
            received_ms += step_ms
            found[partition].append(scored(partition, offset, received_ms, text, uri))
    return found


@dataclass
class Instance:
    """One daemon, without its reading: what it remembers as a leader, or does not."""

    engine: object
    name: str
    leading: Leading = field(init=False)

    def __post_init__(self):
        self.start()

    def start(self):
        """Begins with nothing in memory."""
        ledger, metrics = Ledger(self.engine), Metrics(CollectorRegistry(), [(rule.name, rule.severity) for rule in RULES], [])
        lease, windows = Lease(self.engine, self.name), Windows(REACH_MS, ledger)
        judging = Judging(
            judge=Judge(RULES, {"halden": "Halden", "norvik": "Norvik"}),
            incidents=Incidents(self.engine),
            lease=lease,
            windows=windows,
            receivers=(),
            reach_ms=REACH_MS,
            blind_after_ms=REACH_MS,
            metrics=metrics,
            wall_ms=lambda: 0,
            announce=lambda: None,
        )
        stories = Stories(StorySettings(), ledger)
        self.leading = Leading(lease, ledger, stories, windows, judging, metrics, IDLE_MS, REACH_MS, HOURS_MS, clock_s=self._clock)
        self._seconds = 0.0

    def _clock(self):
        self._seconds += 10.0
        return self._seconds


@dataclass
class Cluster:
    """A database, the instances on it, and how far each partition was read."""

    engine: object
    log: dict
    instances: list[Instance] = field(default_factory=list)
    claims: dict = field(default_factory=dict)
    saved: dict = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))

    def __post_init__(self):
        self.ledger = Ledger(self.engine)
        self.claims = {partition: self.ledger.claim(partition, "reader") for partition in PARTITIONS}
        self.instances = [Instance(self.engine, str(number)) for number in range(3)]

    def read(self, partition, number):
        begin = self.saved[partition]
        batch = self.log[partition][begin : begin + number]
        if not batch:
            return
        claim, end = self.claims[partition], begin + len(batch)
        advance = Advance(partition, claim.epoch, begin or None, end, "log", batch[-1].received_ms, len(batch), 0)
        self.ledger.save(Saving((advance,), tuple(batch), ()))
        self.saved[partition] = end

    def fall_silent(self):
        newest_ms = self.ledger.newest_ms()
        done = {partition for partition in PARTITIONS if self.saved[partition] == len(self.log[partition])}
        quiet = {partition: Quiet(IDLE_MS, None if newest_ms is None else newest_ms - 2_000) for partition in done}
        self.ledger.report(self.claims.values(), quiet)

    def die(self, number):
        """The process ends without a word, and its lease with time."""
        if self.instances[number].leading.lease.held:
            with writing(self.engine) as connection:
                connection.execute(update(lease_table).values(expires_at_ms=0))
        self.instances[number].start()

    def lose_the_lease(self):
        """The leader stalls for so long that another may follow it, and does not know."""
        with writing(self.engine) as connection:
            connection.execute(update(lease_table).values(expires_at_ms=lease_table.c.expires_at_ms - leases.LASTS_MS))

    def finish(self):
        for partition in PARTITIONS:
            self.read(partition, 10**6)
        self.fall_silent()
        for _ in range(4):
            for instance in self.instances:
                while instance.leading.turn(PARTITIONS):
                    pass

    def told(self):
        with reading(self.engine) as connection:
            documents = connection.execute(select(document.c.document_key, document.c.standing, document.c.story_id)).all()
            incidents = connection.execute(select(incident)).all()
            tallies = connection.execute(select(tally)).all()
        buckets = {(bucket.partition, bucket.minute_ms, bucket.series): bucket.count for bucket in self.ledger.buckets(0)}
        return sorted(map(tuple, documents)), sorted(map(tuple, incidents)), sorted(map(tuple, tallies)), buckets


class Nothing:
    """A shelf on which nothing lies."""

    def stories(self, ids):
        return {}

    def known_documents(self, keys):
        return set()


def in_one_go(log):
    """Where every document belongs, and what is counted, when all of them are placed at once in the order of turns."""
    everything = sorted((item for items in log.values() for item in items), key=lambda item: item.turn)
    placement = Stories(StorySettings(), Nothing()).place(everything)
    documents = sorted(
        (item.scored.document_key, str(item.standing), item.story_id)
        for item in placement.placed
        if item.standing is not Standing.DUPLICATE
    )
    return documents, {(bucket.partition, bucket.minute_ms, bucket.series): bucket.count for bucket in fold(placement)}


events = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from(PARTITIONS), st.integers(1, 4)),
        st.tuples(st.just("turn"), st.integers(0, 2)),
        st.tuples(st.just("turn"), st.integers(0, 2)),
        st.tuples(st.just("die"), st.integers(0, 2)),
        st.tuples(st.just("stall")),
        st.tuples(st.just("resign"), st.integers(0, 2)),
        st.tuples(st.just("silence")),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(logs(), events)
def test_the_same_log_gives_the_same_however_it_is_read(tmp_path_factory, log, history):
    folder = tmp_path_factory.mktemp("cluster")
    calm = Cluster(open_engine(f"sqlite:///{folder / 'calm.db'}"), log)
    calm.finish()
    cluster = Cluster(open_engine(f"sqlite:///{folder / 'store.db'}"), log)
    for event in history:
        match event:
            case ("read", partition, number):
                cluster.read(partition, number)
            case ("turn", number):
                cluster.instances[number].leading.turn(PARTITIONS)
            case ("die", number):
                cluster.die(number)
            case ("stall",):
                cluster.lose_the_lease()
            case ("resign", number):
                cluster.instances[number].leading.resign()
            case ("silence",):
                cluster.fall_silent()
    cluster.lose_the_lease()
    cluster.finish()
    documents, incidents, tallies, buckets = cluster.told()
    assert (documents, buckets) == in_one_go(log)
    assert (documents, incidents, tallies, buckets) == calm.told()
    counted = defaultdict(int)
    for _, _, *numbers in tallies:
        counted["all"] += sum(numbers)
    assert counted["all"] == sum(map(len, log.values()))
    assert {series for _, _, series in buckets} >= ({ALL_SERIES} if documents else set())
    for one in (calm, cluster):
        one.engine.dispose()
