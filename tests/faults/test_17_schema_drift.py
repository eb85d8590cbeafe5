"""Family 17: a feed changes its shape or its language in the middle. What cannot be read says why; the rest counts."""

import json
from collections import Counter

import pytest
from sqlalchemy import select

from monitor.store.engine import open_engine, reading
from monitor.store.schema import dead_letter, document
from tests.end_to_end.stream import BEGIN
from tests.faults.tailing import append, news, running, until_placed

EVERY = 25


def renamed(line):
    changed = json.loads(line)
    changed["title"] = changed.pop("headline")
    return json.dumps(changed).encode()


def with_field(**fields):
    return lambda line: json.dumps(json.loads(line) | fields).encode()


DRIFTS = {
    "a field has a new name": (renamed, "missing_text"),
    "an enumeration has a new member": (with_field(pubstatus="embargoed"), "wrong_type"),
    "an object where a text was": (with_field(source={"name": "wire"}), "wrong_type"),
    "the next version of the format": (with_field(schema_version=2), "unsupported_version"),
    "times as numbers": (with_field(versioncreated=1_772_438_400), "wrong_type"),
    "a field more": (with_field(sentiment={"score": -1}, embargo=None), None),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_from_the_change_on_every_record_has_its_reason_and_what_can_be_read_counts(tmp_path, drift):
    change, reason = DRIFTS[drift]
    before = [news(f"before:{number}", f"Halden loses case {number}", received_at=BEGIN) for number in range(EVERY)]
    after = [change(news(f"after:{number}", f"Norvik gains order {number}", received_at=BEGIN)) for number in range(EVERY)]
    last = [news("last", "Halden gains at last", received_at=BEGIN)]
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    append(tmp_path, before)
    with running(tmp_path, engine) as daemon:
        until_placed(engine, len(before))
        append(tmp_path, after + last)
        until_placed(engine, len(before + after + last))
        told = {
            name: daemon.registry.get_sample_value("bellwether_records_rejected_total", {"reason": name})
            for name in (reason,)
            if name
        }
    with reading(engine) as connection:
        letters = Counter(connection.scalars(select(dead_letter.c.reason)))
        uris = set(connection.scalars(select(document.c.uri)))
    engine.dispose()
    assert letters == ({} if reason is None else {reason: EVERY})
    assert told == ({} if reason is None else {reason: EVERY})
    assert {uri.partition(":")[0] for uri in uris} == {"before", "last"} | ({"after"} if reason is None else set())


def test_a_feed_that_changes_its_language_goes_on_and_says_which(tmp_path):
    english = [news(f"en:{number}", f"Halden loses case {number}", language="en", received_at=BEGIN) for number in range(EVERY)]
    chinese = [
        news(f"zh:{number}", f"哈尔登银行第{number}起诉讼败诉", language="zh-Hans", received_at=BEGIN) for number in range(EVERY)
    ]
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    append(tmp_path, english + chinese)
    with running(tmp_path, engine):
        until_placed(engine, 2 * EVERY)
    with reading(engine) as connection:
        assert Counter(connection.scalars(select(document.c.language))) == {"en": EVERY, "zh-Hans": EVERY}
    engine.dispose()
