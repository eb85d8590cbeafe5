"""What stands to a receiver that forgets, by the store of either kind; and that a round of reminding ends as the store does."""

from dataclasses import dataclass, field, replace

import pytest

from alerts.remind import ENDED_WITHIN_MS, Reminder
from alerts.types import AttemptResult, DeliveryStatus
from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from monitor.types import Series, SeriesKind
from tests.alertmanager.telling import a_receiver, decide, fresh, now_ms
from tests.alerts.building import ScriptedChannel, an_attempt

RECEIVER = a_receiver()
NORDIA = Series(SeriesKind.ENTITY, "nordia")


@pytest.fixture
def store(database):
    engine = open_engine(database)
    yield engine
    engine.dispose()


def standing(store, ended_since_ms=0, receiver="am"):
    return [(row.incident_id, row.sequence) for row in SqlOutbox(store).standing(receiver, ended_since_ms)]


# --- what stands -----------------------------------------------------------------------------------


def test_the_last_message_of_every_open_incident_stands_whatever_became_of_it(store):
    decide(store, RECEIVER, fresh(incident_id="1"), fresh(incident_id="2", series=NORDIA))
    outbox = SqlOutbox(store)
    first, second = outbox.due(now_ms(), 10)
    outbox.record(first.delivery_id, an_attempt(), DeliveryStatus.DELIVERED, None, now_ms())
    outbox.record(second.delivery_id, an_attempt(AttemptResult.REFUSED), DeliveryStatus.ABANDONED, None, now_ms())
    assert sorted(standing(store, now_ms() + 1)) == [("1", 1), ("2", 1)]
    assert standing(store, receiver="other") == []


def test_an_ended_incident_stands_with_its_end_for_a_while(store):
    decide(store, RECEIVER, fresh(incident_id="1"))
    decide(store, RECEIVER, fresh(incident_id="1", resolved=True))
    assert standing(store, now_ms() - ENDED_WITHIN_MS) == [("1", 2)]
    assert standing(store, now_ms() + 1) == []


def test_an_ended_incident_whose_end_was_not_for_this_receiver_does_not_stand(store):
    decide(store, RECEIVER, fresh(incident_id="1"))
    decide(store, replace(RECEIVER, name="other"), fresh(incident_id="1", resolved=True))
    assert standing(store) == []
    assert standing(store, receiver="other") == [("1", 2)]


def test_nothing_stands_for_a_disabled_receiver(store):
    decide(store, RECEIVER, fresh(incident_id="1"))
    SqlOutbox(store).disable("am", "it is gone", now_ms())
    assert standing(store) == []


# --- a round ---------------------------------------------------------------------------------------


@dataclass
class Meanwhile(ScriptedChannel):
    """A receiver while whose posts something else happens, one thing a post."""

    happenings: list = field(default_factory=list)

    def send(self, delivery, now_ms):
        attempt = super().send(delivery, now_ms)
        if self.happenings:
            self.happenings.pop(0)()
        return attempt


def remind(store, channel):
    seen = []
    reminder = Reminder(
        SqlOutbox(store), RECEIVER, channel, observe=lambda name, attempt: seen.append((name, attempt.result)), wall_ms=now_ms
    )
    reminder.remind()
    return seen


def test_an_incident_that_ends_while_it_is_told_is_told_again_as_ended(store):
    """The end was decided, and perhaps sent by another instance, before our post of the open incident arrived."""
    decide(store, RECEIVER, fresh(incident_id="1"))
    channel = Meanwhile(happenings=[lambda: decide(store, RECEIVER, fresh(incident_id="1", resolved=True))])
    assert remind(store, channel) == [("am", AttemptResult.DELIVERED)] * 2
    assert [b"endsAt" in told.body for told in channel.sent] == [False, True]


def test_what_did_not_change_is_told_once_a_round(store):
    decide(store, RECEIVER, fresh(incident_id="1"))
    channel = Meanwhile(happenings=[lambda: decide(store, RECEIVER, fresh(incident_id="2", series=NORDIA))])
    remind(store, channel)
    assert [told.body.count(b"alertname") for told in channel.sent] == [1, 1]


def test_a_round_ends_with_the_first_failure(store):
    decide(store, RECEIVER, fresh(incident_id="1"))
    channel = ScriptedChannel([an_attempt(AttemptResult.TIMED_OUT)])
    assert remind(store, channel) == [("am", AttemptResult.TIMED_OUT)]


def test_where_nothing_stands_nothing_is_sent(store):
    channel = ScriptedChannel()
    assert remind(store, channel) == []
    assert channel.sent == []
