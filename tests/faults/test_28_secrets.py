"""Family 28: everything that a secret opens fails, with all that can be said being said. The secrets stand nowhere."""

from pathlib import Path

import pytest

from alerts.types import Delivery, Evaluation
from monitor.sources.times import wall_clock_ms
from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from tests.end_to_end.processes import Bellwether, free_port, until
from tests.faults.oracles import clean_log
from tests.receiver import SECRET

SASL_PASSWORD = "planted-sasl-7d1f"
STORE_PASSWORD = "planted-store-91ac"
HOOK = "planted-hook-path-5e2b"
PAGES = ("/metrics", "/livez", "/readyz", "/config", "/nothing", f"/{HOOK}")


@pytest.mark.soak
@pytest.mark.postgres
def test_no_secret_leaves_the_process_while_kafka_database_and_webhook_fail(tmp_path, fresh_postgres):
    name = fresh_postgres.create_database().rpartition("/")[2]
    url = f"postgresql://bellwether:{STORE_PASSWORD}@127.0.0.1:{fresh_postgres.port}/{name}"
    owe_a_delivery(url)
    kafka = {
        "bootstrap_servers": [f"127.0.0.1:{free_port()}"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "reader",
        "sasl_password": SASL_PASSWORD,
        "request_timeout": "2s",
        "session_timeout": "6s",
    }
    instance = Bellwether(
        tmp_path,
        {"kind": "kafka", "kafka": kafka},
        receiver_url=f"http://127.0.0.1:{free_port()}/{HOOK}?key={HOOK}",
        sections={"log": {"format": "json", "level": "debug"}},
        store_url=url,
    )
    instance.start()
    until(lambda: instance.events("source.unavailable"), 120, "Kafka missed")
    until(lambda: instance.events("delivery.failed"), 60, "the webhook missed")
    fresh_postgres.kill()
    until(lambda: instance.events("store.unavailable"), 120, "the database missed")
    shown = [instance.get(page)[1] for page in PAGES]
    shown.append(Path(f"/proc/{instance.process.pid}/cmdline").read_text(encoding="utf-8"))
    assert "bellwether_build_info" in shown[0]
    assert instance.terminate() == 0
    secrets = (SASL_PASSWORD, STORE_PASSWORD, HOOK, SECRET, SECRET.removeprefix("whsec_"))
    assert [secret for secret in secrets for text in shown if secret in text] == []
    assert clean_log(instance.log, secrets=secrets) == []


@pytest.mark.soak
def test_no_secret_is_told_when_the_database_refuses_it_at_the_start(tmp_path):
    url = f"postgresql://bellwether:{STORE_PASSWORD}@127.0.0.1:{free_port()}/bellwether"
    source = {"kind": "file", "file": {"path": str(tmp_path / "news.jsonl")}}
    instance = Bellwether(tmp_path, source, sections={"log": {"format": "json", "level": "debug"}}, store_url=url)
    instance.start()
    assert instance.process.wait(120) == 3
    assert "the database failed" in instance.log
    assert STORE_PASSWORD not in instance.log


def owe_a_delivery(url):
    engine = open_engine(url)
    lease = Lease(engine, "test")
    assert lease.acquire()
    owed = Delivery("msg_planted", "desk", "an-incident", 1, b"{}", created_at_ms=wall_clock_ms(), due_at_ms=0)
    Incidents(engine).save([Evaluation(0, {}, ())], [owed], 0, lease)
    lease.release()
    engine.dispose()
