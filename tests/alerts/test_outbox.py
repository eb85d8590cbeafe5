"""Changes of incidents become one delivery per receiver; and the outbox of the other tests keeps the contract."""

import json
from dataclasses import replace

import pytest

from alerts.channels.posting import Endpoint
from alerts.channels.webhook import WebhookReceiver
from alerts.outbox import delivery_id, plan
from alerts.signature import Secret
from alerts.types import ChangeKind, Incident, IncidentChange, Severity
from monitor.types import Reading
from tests.alerts.building import HALDEN, MemoryOutbox, a_count, a_rule, minutes
from tests.contracts.outbox_contract import *  # noqa: F403 (the contract's tests run here with the outbox below)

RECEIVERS = tuple(
    WebhookReceiver(name, Endpoint(Secret("https://receiver.test/")), (Secret("whsec_" + "c2VjcmV0" * 4),))
    for name in ("desk", "siem", "pager")
)


@pytest.fixture
def make_outbox():
    def make(deliveries):
        outbox = MemoryOutbox()
        outbox.add(deliveries)
        return outbox

    return make


def a_change(name="14", rule="tone", sequence=1):
    incident = Incident(name, rule, HALDEN, Severity.WARNING, minutes(1), summary="s")
    kind = ChangeKind.OPENED if sequence == 1 else ChangeKind.RESOLVED
    return IncidentChange(kind, sequence, minutes(1), incident, Reading(HALDEN, 0, minutes(1), a_count(negative=1)))


def test_each_change_becomes_one_delivery_per_receiver_in_order():
    changes = [a_change("14"), a_change("15"), a_change("14", sequence=2)]
    deliveries = plan(changes, RECEIVERS, [a_rule()], 77)
    assert [(row.incident_id, row.sequence, row.receiver) for row in deliveries] == [
        (name, sequence, receiver) for name, sequence in (("14", 1), ("15", 1), ("14", 2)) for receiver in ("desk", "siem", "pager")
    ]
    assert {(row.created_at_ms, row.due_at_ms, row.attempts) for row in deliveries} == {(77, 77, 0)}
    assert json.loads(deliveries[0].body)["data"]["incident_id"] == "14"


@pytest.mark.parametrize(
    ("told", "expected"),
    [(None, ["desk", "siem", "pager"]), (("pager", "desk"), ["desk", "pager"]), ((), []), (("nobody",), [])],
)
def test_a_rule_says_who_hears_of_it(told, expected):
    deliveries = plan([a_change()], RECEIVERS, [a_rule(receivers=told)], 0)
    assert [row.receiver for row in deliveries] == expected


def test_of_an_incident_whose_rule_is_gone_everyone_hears():
    deliveries = plan([a_change(sequence=2)], RECEIVERS, [a_rule(name="other", receivers=("desk",))], 0)
    assert [row.receiver for row in deliveries] == ["desk", "siem", "pager"]


def test_the_same_change_gives_the_same_message_at_any_time():
    first, second = plan([a_change()], RECEIVERS, [a_rule()], 1), plan([a_change()], RECEIVERS[::-1], [a_rule()], 2)
    assert {row.delivery_id: row.body for row in first} == {row.delivery_id: row.body for row in second}


def test_every_message_has_its_own_id():
    deliveries = plan([a_change("14"), a_change("15"), a_change("14", sequence=2)], RECEIVERS, [a_rule()], 0)
    assert len({row.delivery_id for row in deliveries}) == 9
    assert delivery_id("1", 11, "a") != delivery_id("11", 1, "a")
    assert deliveries[0].delivery_id == delivery_id("14", 1, "desk") == "msg_ff8c2bd0c902386a5d05f4e6f5a3ca3d"


def test_a_change_of_the_texts_changes_no_id():
    change = a_change()
    other = replace(change, incident=replace(change.incident, summary="another"))
    assert plan([change], RECEIVERS, [], 0)[0].delivery_id == plan([other], RECEIVERS, [], 0)[0].delivery_id
