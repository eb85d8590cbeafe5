"""Whatever dies, stalls or is pruned, the topic has every document that was placed, in that order, always in the same bytes."""

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update

from monitor.config import StoreSettings
from monitor.errors import Deposed, SourceUnavailable
from monitor.metrics import Metrics
from monitor.scored_output import ScoredOutput, document_id
from monitor.store.engine import open_engine, reading, writing
from monitor.store.lease import LASTS_MS, Lease
from monitor.store.ledger import Ledger
from monitor.store.publications import PUBLISHER, Publications
from monitor.store.retention import prune
from monitor.store.schema import document, publication
from monitor.store.schema import lease as lease_table
from monitor.stories import Placed, Placement, Standing
from monitor.types import Partition, PublicationStatus, Scored, Stance

TOPIC = "news.scored"
BEGIN_MS = 1_772_431_200_000
DAY_MS = 86_400_000
KEEP = StoreSettings(keep_documents=timedelta(days=2))


class Killed(Exception):
    """The process is gone."""


def scored(key, received_ms):
    return Scored(
        Partition("news", key % 3), key, received_ms, key, f"urn:{key}", "1", "wire", "en", PublicationStatus.USABLE, None,
        stale=False, headline=f"Headline {key}", topic="fraud", stance=Stance("negative", -9_000),
        toward=(("halden", Stance("neutral", key)),), shingles=b"", keys=b"", model="model",
    )  # fmt: skip


@dataclass
class Broker:
    """Keeps what it is sent, and does what it is told before it answers."""

    log: list = field(default_factory=list)
    meanwhile: object = None

    def append(self, messages):
        event, self.meanwhile = self.meanwhile, None
        match event:
            case ("fails", number):
                self.log.extend(messages[:number])
                raise SourceUnavailable("lost on the way")
            case ("loses the answer",):
                self.log.extend(messages)
                raise SourceUnavailable("lost on the way back")
            case ("sees us killed",):
                self.log.extend(messages)
                raise Killed
            case ("is slow", happens):
                self.log.extend(messages)
                happens()
            case _:
                self.log.extend(messages)

    def close(self):
        pass


@dataclass
class World:
    """A database, who places, who publishes, and what must be true of the topic."""

    engine: object
    broker: Broker = field(default_factory=Broker)
    placed: list = field(default_factory=list)
    lost: set = field(default_factory=set)

    def __post_init__(self):
        self.ledger, self.leader = Ledger(self.engine), Lease(self.engine, "leader")
        self.metrics = Metrics(CollectorRegistry(), [], [])
        self.publishers = [self.publisher(number) for number in range(2)]
        Publications(self.engine, TOPIC).begin()

    def publisher(self, number):
        return ScoredOutput(
            publications=Publications(self.engine, TOPIC),
            lease=Lease(self.engine, str(number), PUBLISHER),
            open_topic=lambda: self.broker,
            metrics=self.metrics,
            wall_ms=lambda: BEGIN_MS,
            at_once=3,
        )

    def place(self, arrivals):
        self.leader.held or self.leader.acquire()
        placed = []
        for days, repeats in arrivals:
            fresh = not (repeats and self.placed)
            key = len(self.placed) if fresh else self.placed[-1][0]
            received_ms = BEGIN_MS + days * DAY_MS
            standing = Standing.STORY if fresh else Standing.DUPLICATE
            placed.append(Placed(scored(key, received_ms), standing, key if fresh else None))
            if fresh:
                self.placed.append((key, received_ms))
        self.ledger.settle(Placement(tuple(placed)), (), self.leader)

    def publish(self, number, event=None):
        self.broker.meanwhile = event
        try:
            return self.publishers[number].turn()
        except (SourceUnavailable, Deposed):
            return False
        except Killed:
            self.publishers[number] = self.publisher(number)
            return False
        finally:
            self.broker.meanwhile = None

    def lose_the_lease(self):
        with writing(self.engine) as connection:
            connection.execute(
                update(lease_table)
                .where(lease_table.c.name == PUBLISHER)
                .values(expires_at_ms=lease_table.c.expires_at_ms - LASTS_MS)
            )

    def another_takes_over(self, number):
        self.lose_the_lease()
        while self.publishers[1 - number].turn():
            pass

    def cursor(self):
        with reading(self.engine) as connection:
            return connection.scalar(select(publication.c.published))

    def prune(self, days):
        with reading(self.engine) as connection:
            before = dict(connection.execute(select(document.c.document_key, document.c.place)).all())
        prune(self.engine, KEEP, BEGIN_MS + days * DAY_MS, BEGIN_MS)
        with reading(self.engine) as connection:
            after = set(connection.scalars(select(document.c.document_key)))
        self.lost |= {key for key, place in before.items() if key not in after and place > self.cursor()}

    def finish(self):
        self.lose_the_lease()
        publications, tries = Publications(self.engine, TOPIC), 0
        # The first attempt may do no more than find out that another instance has followed.
        while self.publish(0) or publications.pending(1).waiting:
            tries += 1
            assert tries <= 2 + len(self.placed), "it does not come to an end"


arrivals = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=6)
events = st.lists(
    st.one_of(
        st.tuples(st.just("place"), arrivals),
        st.tuples(st.just("place"), arrivals),
        st.tuples(st.just("publish"), st.integers(0, 1)),
        st.tuples(st.just("fails"), st.integers(0, 1), st.integers(0, 3)),
        st.tuples(st.just("loses the answer"), st.integers(0, 1)),
        st.tuples(st.just("sees us killed"), st.integers(0, 1)),
        st.tuples(st.just("is slow"), st.integers(0, 1)),
        st.tuples(st.just("lease ends")),
        st.tuples(st.just("prune"), st.integers(2, 9)),
    ),
    # Left to itself it mostly tries histories in which hardly anything happens.
    min_size=8,
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(events)
def test_whatever_happens_every_placed_document_is_published_in_order_or_counted_as_lost(tmp_path_factory, history):
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('output') / 'store.db'}")
    world = World(engine)
    for event in history:
        before = world.cursor()
        match event:
            case ("place", arrivals):
                world.place(arrivals)
            case ("publish", number):
                world.publish(number)
            case ("fails", number, sent):
                world.publish(number, ("fails", sent))
            case ("is slow", number):
                world.publish(number, ("is slow", lambda number=number: world.another_takes_over(number)))
            case ("lease ends",):
                world.lose_the_lease()
            case ("prune", days):
                world.prune(days)
            case (kind, number):
                world.publish(number, (kind,))
        assert world.cursor() >= before
    world.finish()
    log = world.broker.log
    first_of_each = dict.fromkeys(key for key, _ in log)
    names = [document_id(key).encode() for key, _ in world.placed]
    lost = {document_id(key).encode() for key in world.lost}
    assert list(first_of_each) == [name for name in names if name in first_of_each]
    assert set(names) - lost <= first_of_each.keys()
    assert len(set(log)) == len(first_of_each)
    assert world.metrics.output_lost._value.get() == len(lost)
    assert world.metrics.output_waiting._value.get() == 0
    engine.dispose()
