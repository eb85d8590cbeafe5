"""Where messages may be sent, and that every attempt has an end."""

import ipaddress
import threading
import time

import httpcore2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.network import Deadline, ForbiddenAddress, GuardedNetwork, address_fault, system_addresses
from tests.alerts.server import Server, drip, hang

PUBLIC = ["1.1.1.1", "93.184.216.34", "99.255.255.255", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
          "192.167.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001:82b::200e", "::ffff:1.1.1.1",
          "64:ff9b::1.1.1.1"]  # fmt: skip
LOCAL = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "::127.0.0.1": "loopback",
    "64:ff9b::127.0.0.1": "loopback",
    "169.254.169.254": "link-local",
    "::ffff:169.254.169.254": "link-local",
    "64:ff9b::a9fe:a9fe": "link-local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "::ffff:10.0.0.1": "private",
    "fd00:ec2::254": "private",
    "fc00::1": "private",
    "100.64.0.0": "shared",
    "100.127.255.255": "shared",
    "100.100.100.200": "shared",
    "168.63.129.16": "cloud service",
}
NEVER = {
    "0.0.0.0": "reserved",
    "0.1.2.3": "reserved",
    "::": "reserved",
    "192.0.0.8": "reserved",
    "192.0.2.1": "reserved",
    "198.18.0.1": "reserved",
    "203.0.113.1": "reserved",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "2001:db8::1": "reserved",
    "fec0::1": "reserved",
    "100::1": "reserved",
    "192.88.99.1": "reserved",
    "3fff::1": "reserved",
    "5f00::1": "reserved",
    "4000::1": "reserved",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "ff02::1": "multicast",
    "::ffff:224.0.0.1": "multicast",
    "2002:7f00:1::": "tunnelled",
    "2002:101:101::": "tunnelled",
    "2001::1": "tunnelled",
    "64:ff9b:1::7f00:1": "tunnelled",
}


def fault(address, *, allow_private=False):
    return address_fault(ipaddress.ip_address(address), allow_private=allow_private)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address):
    assert fault(address) is None
    assert fault(address, allow_private=True) is None


@pytest.mark.parametrize(("address", "kind"), LOCAL.items())
def test_a_local_address_is_permitted_only_where_private_ones_are(address, kind):
    assert fault(address) == kind
    assert fault(address, allow_private=True) is None


@pytest.mark.parametrize(("address", "kind"), NEVER.items())
def test_other_addresses_are_never_permitted(address, kind):
    assert fault(address) == kind
    assert fault(address, allow_private=True) == kind


@settings(max_examples=200)
@given(st.ip_addresses())
def test_nothing_is_permitted_that_the_library_does_not_call_global(address):
    if address_fault(address, allow_private=False) is None:
        embedded = getattr(address, "ipv4_mapped", None) or address
        assert embedded.is_global
        assert not embedded.is_multicast


@settings(max_examples=100)
@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:", "::", "64:ff9b::"]))
def test_an_ipv4_address_in_ipv6_clothes_is_judged_as_what_it_is(address, prefix):
    if prefix == "::" and int(address) <= 1:
        return
    for allow_private in (False, True):
        assert fault(f"{prefix}{address}", allow_private=allow_private) == fault(str(address), allow_private=allow_private)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "::1", "::ffff:7f00:1"]
)
def test_loopback_is_recognised_however_it_is_spelt(host):
    addresses = system_addresses(host, 443)
    assert addresses
    assert {fault(address) for address in addresses} == {"loopback"}


@pytest.mark.parametrize("host", ["0xA9FEA9FE", "169.254.43518", "2852039166"])
def test_the_metadata_address_is_recognised_however_it_is_spelt(host):
    assert [fault(address) for address in system_addresses(host, 80)] == ["link-local"]


# --- connecting ------------------------------------------------------------------------------------


class Names:
    """A name service with one answer after another."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port):
        self.asked.append(host)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def connect(names, port, *, allow_private=True, left_s=2.0):
    network = GuardedNetwork(Deadline(time.monotonic() + left_s), names, allow_private=allow_private)
    return network.connect_tcp("receiver.test", port)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"], ["::ffff:127.0.0.1"]])
def test_one_forbidden_address_forbids_the_name_before_anything_connects(addresses):
    with Server() as server, pytest.raises(ForbiddenAddress, match="is loopback"):
        connect(Names(addresses), server.port, allow_private=False)
    assert not server.received


def test_the_checked_answer_is_the_one_that_is_used():
    """A name that is rebound between check and connection is asked only once."""
    names = Names(["127.0.0.1"], ["127.0.0.9"])
    with Server() as server:
        stream = connect(names, server.port)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
        stream.close()
    assert names.asked == ["receiver.test"]


def test_the_next_address_is_tried_when_one_does_not_answer():
    with Server() as server:
        stream = connect(Names(["127.0.0.9", "127.0.0.1"]), server.port)
        assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
        stream.close()


def test_no_address_and_no_open_port_are_connection_errors():
    with Server() as server:
        port = server.port
    for names in (Names([]), Names(["127.0.0.1"]), Names(OSError("no such name")), Names(UnicodeError("label too long"))):
        with pytest.raises(httpcore2.ConnectError):
            connect(names, port)


def test_a_fault_of_the_name_service_that_nobody_expects_is_not_hidden():
    with pytest.raises(LookupError):
        connect(Names(LookupError()), 1)


def test_a_name_service_that_hangs_is_left_behind_at_the_deadline():
    hold = threading.Event()
    started_s = time.monotonic()
    with pytest.raises(httpcore2.ConnectTimeout):
        connect(lambda host, port: [str(hold.wait(10))], 1, left_s=0.1)
    assert time.monotonic() - started_s < 1
    hold.set()


def test_a_deadline_that_has_passed_leaves_nothing():
    with pytest.raises(httpcore2.ReadTimeout):
        Deadline(time.monotonic()).left_s()


def read_on(stream):
    while stream.read(1, timeout=60):
        pass


@pytest.mark.parametrize("behaviour", [hang, drip(b"", b"x")], ids=["silent", "dripping"])
def test_reading_ends_at_the_deadline_however_the_bytes_come(behaviour):
    with Server(behaviour) as server:
        stream = connect(Names(["127.0.0.1"]), server.port, left_s=0.3)
        stream.write(b"GET / HTTP/1.1\r\n\r\n")
        started_s = time.monotonic()
        with pytest.raises(httpcore2.ReadTimeout):
            read_on(stream)
        assert time.monotonic() - started_s < 1
        stream.close()


def test_writing_ends_at_the_deadline_when_nobody_reads():
    with Server(hang) as server:
        stream = connect(Names(["127.0.0.1"]), server.port, left_s=0.3)
        started_s = time.monotonic()
        with pytest.raises(httpcore2.WriteTimeout):
            stream.write(b"POST / HTTP/1.1\r\n\r\n" + b"x" * 50_000_000, timeout=60)
        assert time.monotonic() - started_s < 2
        stream.close()
