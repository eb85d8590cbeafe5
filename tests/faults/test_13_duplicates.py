"""Family 13: the same news again, in every way in which it comes again. Each is saved once, and counted as what it is."""

import json
import random

from sqlalchemy import select

from monitor.store.engine import open_engine, reading
from monitor.store.ledger import Ledger
from monitor.store.schema import story, tally
from monitor.types import ALL_SERIES
from tests.end_to_end.stream import BEGIN
from tests.faults.tailing import append, news, running, until_placed

REPORT = (
    "Regulators in Norland opened an inquiry into capital shortfalls at the lender after auditors resigned over missing records"
)
OTHER = "Shipping volumes through the northern strait rose to a record as ferries and tankers returned after the winter ice"
PLACES = [
    f"{head}{tail}" for head in ("Nor", "Sud", "Ost", "West", "Mit") for tail in ("burg", "stad", "haven", "mark", "feld", "berg")
]
COPIES = len(PLACES)


def placed(folder, lines):
    """(stories, copies, stale, duplicates) after the lines were read; and the documents of each story."""
    engine = open_engine(f"sqlite:///{folder / 'store.db'}")
    append(folder, lines)
    with running(folder, engine):
        until_placed(engine, len(lines))
    with reading(engine) as connection:
        numbers = connection.execute(select(tally.c.stories, tally.c.copies, tally.c.stale, tally.c.duplicates)).one()
        sizes = sorted(connection.scalars(select(story.c.documents)))
    counts = [bucket.count for bucket in Ledger(engine).buckets(0) if bucket.series == ALL_SERIES]
    assert (sum(sum(count.stories) for count in counts), sum(sum(count.copies) for count in counts)) == tuple(numbers[:2])
    engine.dispose()
    return tuple(numbers), sizes


def test_the_same_record_the_same_id_and_the_same_text_again(tmp_path):
    first = news("urn:a", REPORT, version=1, received_at=BEGIN)
    lines = [
        first,
        first,  # a producer that repeats itself
        news("urn:a", OTHER, version=1, received_at=BEGIN),  # the same id and version with another text: the first one stands
        news("urn:a", f"CORRECTED-{REPORT}", version=2, received_at=BEGIN),  # a correction
        news("urn:b", REPORT, version=1, received_at=BEGIN),  # the same text under another id
        news("urn:c", OTHER, version=1, received_at=BEGIN),
    ]
    assert placed(tmp_path, lines) == ((2, 2, 0, 2), [1, 3])


def test_thirty_syndicated_copies_are_one_story_whatever_their_dress_and_order(tmp_path):
    chance = random.Random(13)
    dresses = ("{0}", "UPDATE 1-{0}", "{0} - {1}", "RPT-{0}", "{0} | {1}", "{0}.")
    copies = [
        news(f"urn:copy:{number}", chance.choice(dresses).format(REPORT, source), source=source, received_at=BEGIN)
        for number, source in enumerate(f"The {name} Post" for name in PLACES)
    ]
    chance.shuffle(copies)
    lines = [copies[0], news("urn:other", OTHER, received_at=BEGIN), *copies[1:], copies[-1]]
    assert placed(tmp_path, lines) == ((2, COPIES - 1, 0, 1), [1, COPIES])


def test_a_log_that_is_replayed_into_its_own_database_counts_nothing_twice(tmp_path):
    lines = [news(f"urn:{number}", f"{REPORT} number {number}", received_at=BEGIN) for number in range(40)]
    once = [json.loads(line)["uri"] for line in lines]
    (stories, copies, stale, duplicates), _ = placed(tmp_path, [*lines, *reversed(lines)])
    assert (stories + copies, stale, duplicates) == (len(set(once)), 0, len(once))
