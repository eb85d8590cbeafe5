from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.types import Partition
from monitor.watermark import Watermark

IDLE_S = 4
NAMES = st.integers(0, 2).map(lambda number: Partition("news", number))
TIMES = st.sampled_from([0, 1_000, 3_999, 4_000, 4_001, 20_000, 60_000])


@dataclass(frozen=True)
class Observe:
    partition: Partition
    time_ms: int


@dataclass(frozen=True)
class Confirm:
    partition: Partition


@dataclass(frozen=True)
class Assign:
    partitions: dict[Partition, int | None]


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 3, 4, 5]),
        st.one_of(
            st.builds(Observe, NAMES, TIMES),
            st.builds(Confirm, NAMES),
            st.builds(Confirm, NAMES),
            st.builds(Assign, st.dictionaries(NAMES, st.one_of(st.none(), TIMES), max_size=3)),
        ),
    ),
    max_size=40,
)


def reached_ms(past):
    """Where the definition puts the mark after this history of (second, event), from nothing but the history."""
    begun = max((at for at, (_, event) in enumerate(past) if isinstance(event, Assign)), default=None)
    if begun is None:
        return None
    saved = past[begun][1].partitions
    since = past[begun + 1 :]
    newest, first_seen, last_confirmed, talking = {}, {}, {}, []
    for partition, saved_ms in saved.items():
        mine = [(second, event) for second, event in since if getattr(event, "partition", None) == partition]
        records = [(second, event.time_ms) for second, event in mine if isinstance(event, Observe)]
        confirmed = [second for second, event in mine if isinstance(event, Confirm)]
        times = [time_ms for _, time_ms in records] + ([] if saved_ms is None else [saved_ms])
        newest[partition] = max(times, default=None)
        after_last = mine[max((at for at, (_, event) in enumerate(mine) if isinstance(event, Observe)), default=-1) + 1 :]
        last_confirmed[partition] = after_last[-1][0] if after_last else None
        quiet_since = records[-1][0] if records else (confirmed[0] if confirmed else None)
        if not after_last or after_last[-1][0] - quiet_since < IDLE_S:
            talking.append(partition)
        beyond = [second for second, time_ms in records if time_ms == newest[partition]]
        restored = saved_ms is not None and saved_ms == newest[partition]
        first_seen[partition] = quiet_since if restored else (beyond[0] if beyond else None)
    if talking:
        held = [newest[partition] for partition in talking]
        return None if None in held else min(held)
    known = [partition for partition in saved if newest[partition] is not None]
    if not known:
        return None
    top = max(newest[partition] for partition in known)
    seen = min(first_seen[partition] for partition in known if newest[partition] == top)
    return top + 1_000 * max(0, min(last_confirmed.values()) - seen - IDLE_S)


@settings(max_examples=200, deadline=None)
@given(steps, st.one_of(st.none(), TIMES))
def test_the_mark_is_the_highest_that_the_definition_has_reached(history, floor_ms):
    mark = Watermark(float(IDLE_S), floor_ms)
    second, past, highest = 0, [], floor_ms
    for wait, event in history:
        second += wait
        past.append((second, event))
        match event:
            case Observe(partition, time_ms):
                mark.observe(partition, time_ms, float(second))
            case Confirm(partition):
                mark.confirm_end(partition, float(second))
            case Assign(partitions):
                mark.assign(partitions)
        now_ms = reached_ms(past)
        highest = now_ms if highest is None else highest if now_ms is None else max(highest, now_ms)
        assert mark.value_ms() == highest
        for time_ms in (0, 4_000, 60_000):
            assert mark.is_late(time_ms) == (highest is not None and time_ms < highest)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, TIMES), max_size=20), st.integers(1, 3))
def test_a_loop_that_asks_about_the_candidates_lets_silence_move_time(records, count):
    """Whatever came before, asking every second about the candidates alone makes time run a second a second in the end."""
    partitions = [Partition("news", number) for number in range(count)]
    mark = Watermark(float(IDLE_S))
    mark.assign(dict.fromkeys(partitions))
    mark.observe(partitions[0], 500, 0.0)
    for second, (partition, time_ms) in enumerate(records):
        mark.observe(partition, time_ms, float(second))
    marks = []
    for second in range(len(records), len(records) + 60):
        for partition in mark.quiet_candidates(float(second)):
            mark.confirm_end(partition, float(second))
        marks.append(mark.value_ms())
    assert marks[-1] is not None
    assert marks[-1] - marks[-21] == 20_000
