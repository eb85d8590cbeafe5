"""Publishing through a producer that a test watches: every line once, in its time, at its pace, failures counted."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from monitor.publish import Pace, message_key, publish_through


@dataclass
class Told:
    """What became of one message, known at once."""

    error: BaseException | None

    def add_callback(self, then):
        if self.error is None:
            then(None)
        return self

    def add_errback(self, then):
        if self.error is not None:
            then(self.error)
        return self


@dataclass
class FakeProducer:
    """Takes everything but what says "too big" or "lost"; remembers what, when and with which time and key."""

    now_s: float = 0.0
    sent: list = field(default_factory=list)

    def send(self, topic, value, key, *, timestamp_ms):
        if b"too big" in value:
            raise MessageSizeTooLargeError
        self.sent.append((self.now_s, value, key, timestamp_ms))
        return Told(KafkaTimeoutError() if b"lost" in value else None)

    def flush(self, timeout):
        pass

    def clock(self):
        return self.now_s

    def sleep(self, wait_s):
        self.now_s += wait_s


def published(lines, pace=None, timestamps="document"):
    producer = FakeProducer()
    result = publish_through(
        producer,
        lines,
        "news.raw",
        pace=pace or Pace(),
        timestamps=timestamps,
        progress=None,
        answer_s=1,
        clock_s=producer.clock,
        sleep=producer.sleep,
    )
    return producer.sent, result


def dated(second, uri="a"):
    return b'{"uri": "%s", "headline": "x", "received_at": "2026-03-02T00:00:%02dZ"}\n' % (uri.encode(), second)


BEGIN_MS = 1_772_409_600_000


def test_lines_go_out_as_they_are_keyed_by_their_uri_and_blank_ones_do_not():
    sent, result = published([dated(1), b"\n", b"no JSON\r\n", b"  \n"])
    assert [(value, key) for _, value, key, _ in sent] == [(dated(1).rstrip(), b"a"), (b"no JSON", None)]
    assert (result.sent, result.failed) == (2, 0)


def test_a_line_without_a_time_has_that_of_the_line_before_it():
    sent, _ = published([b"first\n", dated(5), b"garbage\n", dated(9)])
    assert [time_ms for *_, time_ms in sent] == [None, BEGIN_MS + 5_000, BEGIN_MS + 5_000, BEGIN_MS + 9_000]


def test_the_beginning_of_the_epoch_is_a_time_too():
    epoch = b'{"uri": "a", "headline": "x", "received_at": "1970-01-01T00:00:00Z"}\n'
    sent, _ = published([dated(5), epoch, b"garbage\n"])
    assert [time_ms for *_, time_ms in sent] == [BEGIN_MS + 5_000, 0, 0]


def test_the_time_of_sending_is_left_to_the_producer():
    sent, _ = published([dated(5)], timestamps="now")
    assert sent[0][3] is None


def test_failures_are_counted_by_their_kind_and_stop_nothing():
    sent, result = published([b"too big\n", b"lost\n", dated(1)])
    assert (result.sent, result.failed) == (1, 2)
    assert dict(result.failures) == {"MessageSizeTooLargeError": 1, "KafkaTimeoutError": 1}
    assert len(sent) == 2


@given(st.lists(st.one_of(st.none(), st.integers(0, 59)), min_size=1, max_size=12), st.sampled_from([0.5, 1.0, 10.0]))
def test_at_a_speed_each_line_goes_when_its_time_has_come_and_never_before_its_predecessor(seconds, speed):
    lines = [b"undated\n" if second is None else dated(second) for second in seconds]
    sent, _ = published(lines, Pace(speed=speed))
    first, due = next((second for second in seconds if second is not None), 0), 0.0
    for (at_s, *_), second in zip(sent, seconds, strict=True):
        due = max(due, 0.0 if second is None else (second - first) / speed)
        assert at_s == pytest.approx(due)


def test_at_a_rate_lines_go_evenly():
    sent, _ = published([dated(1)] * 5, Pace(documents_per_s=4))
    assert [at_s for at_s, *_ in sent] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    "options", [{"speed": 1, "documents_per_s": 1}, {"speed": 0}, {"documents_per_s": -1}, {"speed": float("nan")}]
)
def test_a_pace_that_is_none_is_refused(options):
    with pytest.raises(ValueError, match=r"pace|exclude"):
        Pace(**options)


@pytest.mark.parametrize(("line", "key"), [(b'{"uri": "a"}', b"a"), (b'{"uri": 5}', None), (b'{"uri": ""}', None), (b"\xff", None)])
def test_a_key_is_a_uri_or_nothing(line, key):
    assert message_key(line) == key
