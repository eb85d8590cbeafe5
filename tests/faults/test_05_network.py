"""Family 5: connections to the broker are reset, half open, stalled in one direction or both, late, refused; or never made."""

import logging
import socket
import ssl
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from kafka import KafkaConsumer

from monitor.config import KafkaSettings
from monitor.errors import SourceUnavailable
from monitor.sources.kafka import KafkaSource
from monitor.sources.kafka_client import connection_options, open_client, require_topics
from tests.end_to_end.processes import until
from tests.faults.brokers import proxied_kafka
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.oracles import clean_log, conservation, consumed
from tests.kafka.server import USER, VARIABLE, KafkaAbsent

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]

THIS_YEAR = datetime.now(UTC).year


@pytest.fixture(scope="module")
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


def test_a_topic_that_exists_is_not_missed_for_an_answer_to_an_earlier_question(proxied):
    """Line: latency; the client asks for its topics while an older question of it is still under way."""
    kafka, proxy = proxied
    topic = kafka.create_topic()
    options = connection_options(settings(kafka.proxied_bootstrap))
    consumer, client = open_client(KafkaConsumer, options)
    with closing(consumer):
        proxy.latency_s = 0.5
        try:
            earlier = client.cluster.request_update()
            time.sleep(0.2)
            assert not earlier.is_done
            require_topics(client, [topic], ["anywhere"], 10_000)
        finally:
            proxy.heal()


def settings(bootstrap, **more):
    return KafkaSettings(
        bootstrap_servers=(bootstrap,),
        topics=("news",),
        request_timeout=timedelta(seconds=4),
        session_timeout=timedelta(seconds=3),
        **more,
    )


def refusal(bootstrap, **more):
    """What the source says of a cluster that does not answer as it should; within bounded time, and no thread stays behind."""
    threads, begun_s = threading.active_count(), time.monotonic()
    with pytest.raises(SourceUnavailable) as caught:
        KafkaSource(settings(bootstrap, **more))
    assert time.monotonic() - begun_s < 20
    assert threading.active_count() == threads
    # Not the error itself: it holds on to all that failed.
    return str(caught.value)


def test_a_name_that_nobody_knows_is_a_source_that_does_not_answer():
    """Line: DNS failure (the name is reserved to be unknown, RFC 6761)."""
    assert "nowhere.invalid" in refusal("nowhere.invalid:9092")


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
    assert secret not in said + caplog.text


AUTHORITY = """
[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
default_md = sha256
rand_serial = yes
policy = named
x509_extensions = names
[named]
commonName = supplied
[names]
subjectAltName = DNS:{name}
basicConstraints = CA:TRUE
"""


def certificate_of(folder, name, year):
    """A key, and a certificate for `name` that is valid in one year and signed by itself."""
    key, request, certificate, config = (folder / file for file in ("key.pem", "request.pem", "certificate.pem", "ca.conf"))
    config.write_text(AUTHORITY.format(folder=folder, name=name))
    (folder / "index.txt").touch()
    ask = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}"]
    sign = ["ca", "-batch", "-selfsign", "-notext", "-config", config, "-keyfile", key, "-in", request, "-out", certificate]
    sign += ["-startdate", f"{year}0101000000Z", "-enddate", f"{year + 1}0101000000Z"]
    for command in (ask, sign):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return key, certificate


@contextmanager
def tls_server(folder, *, name, year):
    """A TLS port that shows a certificate for `name`, valid in one year; and the authority to trust."""
    key, certificate = certificate_of(folder, name, year)
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


@pytest.mark.parametrize(("name", "year"), [("localhost", 2020), ("somebody.else", THIS_YEAR)], ids=["expired", "wrong name"])
def test_a_broker_whose_certificate_is_not_good_is_not_spoken_to_but_waited_for(tmp_path, name, year):
    """Lines: TLS certificate expired, certificate of another name."""
    with tls_server(tmp_path, name=name, year=year) as (port, authority):
        cluster = Cluster(tmp_path / "cluster", f"localhost:{port}", "news", f"sqlite:///{tmp_path / 'store.db'}")
        secure = {"security_protocol": "SSL", "ssl_cafile": str(authority), "request_timeout": "8s"}
        daemon = cluster.instance("daemon", kafka=secure)
        daemon.begin()
        (told,) = until(lambda: daemon.events("source.unavailable"), WAIT_S, "it says that it waits")[:1]
        assert "does not answer" in told["reason"]
        assert (daemon.get("/livez")[0], daemon.get("/readyz")[0]) == (200, 503)
        assert daemon.terminate() == 0
