"""Family 5: connections to the broker are reset, half open, stalled in one direction or both, late, refused; or never made."""

import logging
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from monitor.config import KafkaSettings
from monitor.errors import SourceError, SourceUnavailable
from monitor.sources.kafka import KafkaSource
from tests.end_to_end.processes import until
from tests.faults.brokers import proxied_kafka
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.oracles import clean_log, conservation, consumed
from tests.kafka.server import USER, VARIABLE, KafkaAbsent

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
def proxied(tmp_path_factory):
    """A broker of our own and the proxy that its clients come through."""
    try:
        with proxied_kafka(tmp_path_factory.mktemp("proxied")) as found:
            yield found
    except KafkaAbsent as absent:
        pytest.skip(f"no Kafka: {absent}; one of {VARIABLE} tells its clients no proxy")


def test_whatever_happens_to_connections_costs_only_time(tmp_path, proxied, postgres, news):
    """Lines: RST, half open, black hole, one way (each), 2 s latency, connection refused; a slice of news is published in each."""
    kafka, proxy = proxied
    cluster = Cluster(
        tmp_path, kafka.proxied_bootstrap, new_topic(kafka, 3), postgres.create_database(), rules=FEW_RULES, session_s=3
    )
    engine = cluster.engine()
    daemon = cluster.instance("daemon", kafka={"request_timeout": "5s"})
    daemon.begin()
    daemon.until_ready()
    deeds = (
        (proxy.reset, 0.2),
        (proxy.half_open, 0.2),
        (proxy.black_hole, 4),
        (proxy.swallow_answers, 4),
        (proxy.swallow_requests, 4),
        (proxy.refuse, 0.0),
        (lambda: setattr(proxy, "latency_s", 2.0), 4),
    )
    sent = 0
    for place, (deed, lasts_s) in enumerate(deeds, 1):
        part = news.lines[sent : len(news.lines) * place // len(deeds)]
        deed()
        if deed == proxy.refuse:
            proxy.reset()
        send(kafka, cluster.topic, part)
        sent += len(part)
        time.sleep(lasts_s)
        proxy.heal()
        until(lambda sent=sent: consumed(engine) == sent, WAIT_S, f"all read after fault {place}")
    assert sent == len(news.lines)
    until_told(engine, news.lines)
    assert daemon.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert clean_log(daemon.log) == []


def settings(bootstrap, **more):
    return KafkaSettings(
        bootstrap_servers=(bootstrap,),
        topics=("news",),
        request_timeout=timedelta(seconds=4),
        session_timeout=timedelta(seconds=3),
        **more,
    )


def refusal(bootstrap, **more):
    """What the source says of a cluster that cannot be used, and how long that took it."""
    begun_s = time.monotonic()
    with pytest.raises(SourceError) as caught:
        KafkaSource(settings(bootstrap, **more))
    assert time.monotonic() - begun_s < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kafka-io")]
    return caught.value


def test_a_name_that_nobody_knows_is_a_source_that_does_not_answer():
    """Line: DNS failure (the name is reserved to be unknown, RFC 6761)."""
    assert "nowhere.invalid" in str(refusal("nowhere.invalid:9092"))


def test_a_wrong_password_is_refused_in_bounded_time_and_shown_nowhere(local_kafka, caplog):
    """Line: SASL failure; S: no secret in what is logged or raised."""
    caplog.set_level(logging.DEBUG)
    secret = "not-the-password-of-anybody"
    said = refusal(
        local_kafka.sasl_bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password=secret,
    )
    assert secret not in str(said) + caplog.text


@contextmanager
def tls_server(folder, *, name, days):
    """A TLS port that shows a certificate for `name`, valid until so many days from now; and the authority to trust."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", str(days)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet():
            while True:
                try:
                    client, _ = listener.accept()
                    with context.wrap_socket(client, server_side=True) as connection:
                        connection.recv(1)
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], certificate
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.mark.parametrize(("name", "days"), [("localhost", 0), ("somebody.else", 30)], ids=["expired", "wrong name"])
def test_a_broker_whose_certificate_is_not_good_is_not_spoken_to(tmp_path, name, days):
    """Lines: TLS certificate expired, certificate of another name."""
    with tls_server(tmp_path, name=name, days=days) as (port, authority):
        said = refusal(f"localhost:{port}", security_protocol="SSL", ssl_cafile=authority)
    assert isinstance(said, SourceUnavailable)
