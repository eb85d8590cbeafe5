"""One leader at a time, by the database's clock, and no write of one that was followed."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from monitor.errors import Deposed
from monitor.store import lease
from monitor.store.engine import open_engine, reading, writing
from monitor.store.lease import LASTS_MS, Lease
from monitor.store.schema import lease as lease_table
from monitor.store.schema import meta


@pytest.fixture
def engine(database):
    engine = open_engine(database)
    yield engine
    engine.dispose()


def wait(engine, milliseconds):
    """As if so much time had gone by since the lease was prolonged."""
    with writing(engine) as connection:
        connection.execute(update(lease_table).values(expires_at_ms=lease_table.c.expires_at_ms - milliseconds))


def test_who_comes_first_has_it_and_the_next_when_it_is_let_go(engine):
    one, other = Lease(engine, "one"), Lease(engine, "other")
    assert (one.held, one.acquire(), one.held) == (False, True, True)
    assert (other.acquire(), other.held) == (False, False)
    one.release()
    assert (one.held, other.acquire()) == (False, True)
    one.release()
    assert not one.acquire()


def test_it_ends_when_it_is_not_renewed(engine):
    one, other = Lease(engine, "one"), Lease(engine, "other")
    one.acquire()
    wait(engine, LASTS_MS - 2_000)
    assert not other.acquire()
    one.renew()
    wait(engine, LASTS_MS - 2_000)
    assert not other.acquire()
    wait(engine, 2_001)
    assert other.acquire()
    with pytest.raises(Deposed):
        one.renew()
    assert not one.held


def test_while_it_is_kept_work_may_take_longer_than_it_lasts(engine, monkeypatch):
    monkeypatch.setattr(lease, "LASTS_MS", 600)
    one, other = Lease(engine, "one"), Lease(engine, "other")
    assert one.acquire()
    with one.kept():
        until_s = time.monotonic() + 1.8
        while time.monotonic() < until_s:
            assert not other.acquire()
    with writing(engine) as connection:
        one.prolong(connection)


def test_it_is_not_kept_for_ever(engine, monkeypatch):
    monkeypatch.setattr(lease, "LASTS_MS", 300)
    one, other = Lease(engine, "one"), Lease(engine, "other")
    assert one.acquire()
    with one.kept(at_most_s=0):
        until_s = time.monotonic() + 60
        while not other.acquire():
            assert time.monotonic() < until_s
        assert one.held
    with pytest.raises(Deposed), writing(engine) as connection:
        one.prolong(connection)


def test_who_is_followed_while_it_keeps_the_lease_hears_of_it_when_it_saves(engine, monkeypatch):
    monkeypatch.setattr(lease, "LASTS_MS", 300)
    one, other = Lease(engine, "one"), Lease(engine, "other")
    assert one.acquire()
    wait(engine, 300)
    assert other.acquire()
    with one.kept():
        until_s = time.monotonic() + 60
        while one.held:
            assert time.monotonic() < until_s
    with pytest.raises(Deposed), writing(engine) as connection:
        one.prolong(connection)


def test_one_that_has_ended_and_that_nobody_took_is_still_ours(engine):
    lease = Lease(engine, "one")
    lease.acquire()
    wait(engine, 10 * LASTS_MS)
    lease.renew()
    assert not Lease(engine, "other").acquire()


def test_a_clock_that_was_set_back_does_not_keep_it_for_ever(engine):
    Lease(engine, "one").acquire()
    wait(engine, -3_600_000)
    assert Lease(engine, "other").acquire()


def test_a_transaction_of_who_was_followed_leaves_nothing(engine):
    one, other = Lease(engine, "one"), Lease(engine, "other")
    one.acquire()
    wait(engine, LASTS_MS)
    other.acquire()

    def write():
        with writing(engine) as connection:
            connection.execute(insert(meta).values(key="by", value="one"))
            one.prolong(connection)

    with pytest.raises(Deposed):
        write()
    with reading(engine) as connection:
        assert connection.scalar(select(meta.c.value).where(meta.c.key == "by")) is None


def test_of_many_that_want_it_at_once_one_has_it(engine):
    leases = [Lease(engine, f"instance-{number}") for number in range(6)]
    threads = [threading.Thread(target=lease.acquire) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease.held for lease in leases) == 1


acts = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["acquire", "renew", "release", "wait"])), max_size=20)


@settings(max_examples=40, deadline=None)
@given(acts)
def test_whatever_instances_do_exactly_the_last_that_took_it_may_write(make_database, history):
    engine = open_engine(make_database())
    leases, holder, free = [Lease(engine, str(number)) for number in range(3)], None, True
    for number, act in history:
        lease = leases[number]
        if act == "wait":
            wait(engine, LASTS_MS)
            free = True
        elif act == "acquire" and not lease.held:
            taken = lease.acquire()
            assert taken == free
            if taken:
                holder, free = number, False
        elif act == "release":
            free = free or (lease.held and holder == number)
            holder = None if holder == number else holder
            lease.release()
        elif lease.held and holder == number:
            lease.renew()
            free = False
        elif lease.held:
            with pytest.raises(Deposed):
                lease.renew()
    engine.dispose()
