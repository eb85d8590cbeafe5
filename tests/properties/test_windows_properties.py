from __future__ import annotations

from functools import reduce
from operator import add

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.types import ALL_SERIES, MINUTE_MS, Bucket, Count, Partition, Series, SeriesKind
from monitor.windows import Windows

CAPACITY_MINUTES = 30
SERIES = [ALL_SERIES, Series(SeriesKind.TOPIC, "fraud"), Series(SeriesKind.ENTITY, "halden"), Series(SeriesKind.ENTITY, "norvik")]
MINUTES = st.one_of(st.sampled_from([0, 1, 29, 30, 31, 60]), st.integers(0, 90))
numbers = st.tuples(*[st.integers(0, 3)] * 4)
buckets = st.builds(
    Bucket,
    st.integers(0, 1).map(lambda number: Partition("news", number)),
    MINUTES.map(lambda minute: minute * MINUTE_MS),
    st.sampled_from(SERIES),
    st.builds(Count, numbers.filter(any), numbers, st.integers(-20_000, 20_000)),
)


class NoSources:
    def sources(self, series, window_ms, until_ms):
        return 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.lists(buckets, max_size=12), MINUTES, st.integers(0, CAPACITY_MINUTES), st.booleans()), max_size=8))
def test_a_reading_is_the_sum_of_the_buckets_in_the_window(steps):
    """Against the plain list of everything added that was not forgotten, in whatever order it came."""
    read = Windows(CAPACITY_MINUTES * MINUTE_MS, NoSources())
    kept: list[Bucket] = []
    from_ms = -1
    for added, minute, length, forget in steps:
        read.add(added)
        kept += [bucket for bucket in added if bucket.minute_ms >= from_ms]
        if forget:
            from_ms = max(from_ms, minute * MINUTE_MS)
            read.forget_before(minute * MINUTE_MS)
            kept = [bucket for bucket in kept if bucket.minute_ms >= from_ms]
        until_ms, window_ms = (minute + 5) * MINUTE_MS, length * MINUTE_MS
        inside = [bucket for bucket in kept if until_ms - window_ms <= bucket.minute_ms < until_ms]
        for series in SERIES:
            expected = reduce(add, (bucket.count for bucket in inside if bucket.series == series), Count())
            assert read.reading(series, window_ms, until_ms).count == expected
        for kind in SeriesKind:
            assert read.counted(kind, window_ms, until_ms) == sorted(
                {bucket.series for bucket in inside if bucket.series.kind is kind}
            )
        later = [bucket.minute_ms for bucket in kept if bucket.minute_ms > until_ms]
        assert read.next_counted_minute(max(until_ms, from_ms)) == min(
            (m for m in later if m > max(until_ms, from_ms)), default=None
        )
