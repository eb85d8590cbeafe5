"""Changes of incidents as they happen now, and made true in a store as judging does."""

import time
from dataclasses import replace

from alerts.channels.alertmanager import AlertmanagerReceiver
from alerts.channels.posting import Endpoint
from alerts.outbox import plan
from alerts.signature import Secret
from alerts.types import Evaluation
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from tests.alerts.building import a_change, a_rule, minutes


def now_ms():
    return time.time_ns() // 1_000_000


def a_receiver(url="http://127.0.0.1:1", **changes):
    endpoint = Endpoint(Secret(url), allow_private_addresses=True, allow_http=True)
    return replace(AlertmanagerReceiver("am", endpoint), **changes)


def fresh(*, resolved=False, **changes):
    """A change of an incident that opened two minutes ago; it was resolved one minute ago, if it was."""
    at_ms = now_ms()
    times = {"opened_at_ms": at_ms - minutes(2)} | ({"resolved_at_ms": at_ms - minutes(1)} if resolved else {})
    return a_change(resolved=resolved, **times, **changes)


def decide(store, receiver, *changes):
    """Makes changes and their deliveries true, as judging does."""
    lease = Lease(store, "me")
    assert lease.acquire()
    deliveries = plan(changes, [receiver], [a_rule()], now_ms())
    Incidents(store).save([Evaluation(now_ms(), {}, tuple(changes))], deliveries, 0, lease)
    lease.release()
