"""Files of old news to the records of one log."""

import json

import pytest
import zstandard

from monitor.errors import PipelineError
from monitor.types import NO_TIME
from pipelines.backtest.archive import merged, open_archive

MINUTE_MS = 60_000
SIX_MS = 1_772_431_200_000  # 2026-03-02T06:00Z


def table(*rows, header="ts_utc\tslug\ttitle"):
    return "\n".join((header, *("\t".join(row) for row in rows), "")).encode()


def written(path, content):
    path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)
    return path


def read(*paths, source=None, **span):
    return list(merged(open_archive(paths, source), **span))


def news(record):
    return json.loads(record.value)


def test_a_packed_table_becomes_wire_records_whose_source_is_the_beginning_of_the_files_name(tmp_path):
    wire = written(tmp_path / "harbour_headlines_2026.tsv.zst", table(("2026-03-02T06:00Z", "top", 'Queue at "Halden Bank')))
    (record,) = read(wire)
    assert record.time_ms == SIX_MS
    assert news(record)["headline"] == 'Queue at "Halden Bank'
    assert news(record)["source"] == "harbour"
    assert news(read(wire, source="the-wire")[0])["source"] == "the-wire"


def test_a_table_may_name_sources_and_descriptions_with_quotes_where_it_is_a_csv(tmp_path):
    content = (
        b'ts_utc,source,title,description\n2026-03-02T06:00:05Z,gazette,"Halden, Norvik merge","A ""merger"", says\nGazette"\n'
    )
    (record,) = read(written(tmp_path / "feeds.csv", content))
    assert record.time_ms == SIX_MS + 5_000
    assert news(record) | {"uri": ""} == {
        "uri": "",
        "headline": "Halden, Norvik merge",
        "body_text": 'A "merger", says\nGazette',
        "source": "gazette",
        "language": "",
        "received_at": "2026-03-02T06:00:05Z",
        "versioncreated": "2026-03-02T06:00:05Z",
    }


def test_lines_of_wire_records_go_through_as_they_are_with_the_time_that_they_say(tmp_path):
    lines = [b'{"uri": "a", "headline": "x", "received_at": "2026-03-02T06:00:00Z"}', b"{", b"", b'{"uri": "b", "headline": "y"}']
    records = read(written(tmp_path / "news.jsonl", b"\n".join(lines)))
    assert [record.value for record in records] == [lines[0], lines[1], lines[3]]
    assert [record.time_ms for record in records] == [SIX_MS, NO_TIME, NO_TIME]


def test_several_files_are_one_log_in_the_order_of_time_and_at_one_time_in_their_own(tmp_path):
    first = written(tmp_path / "a.tsv", table(("2026-03-02T06:02Z", "s", "a2"), ("2026-03-02T06:05Z", "s", "a5")))
    second = written(tmp_path / "b.tsv", table(("2026-03-02T06:00Z", "s", "b0"), ("2026-03-02T06:02Z", "s", "b2")))
    records = read(first, second)
    assert [news(record)["headline"] for record in records] == ["b0", "a2", "b2", "a5"]
    assert [record.offset for record in records] == [0, 1, 2, 3]
    span = {"from_ms": SIX_MS + 2 * MINUTE_MS, "until_ms": SIX_MS + 5 * MINUTE_MS}
    assert [news(record)["headline"] for record in read(first, second, **span)] == ["a2", "b2"]


def test_a_row_that_is_none_is_counted_and_costs_only_itself(tmp_path):
    path = written(
        tmp_path / "a.tsv",
        table(
            ("2026-03-02T06:00Z", "s", "good"),
            ("noon", "s", "bad time"),
            ("2026-03-02T06:01Z", "s"),
            ("2026-03-02T06:01Z", "s", "t"),
        ),
    )
    (file,) = open_archive([path])
    assert [news(record)["headline"] for record in merged([file])] == ["good", "t"]
    assert dict(file.bad.rows) == {"no time": 1, "not 3 columns": 1}
    assert file.bad.first_line == {"no time": 3, "not 3 columns": 4}
    assert file.read_bytes == file.size_bytes


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(PipelineError, match=r"notes\.pdf is none of .*missing\.tsv is no file"):
        open_archive([tmp_path / "notes.pdf", tmp_path / "missing.tsv"])
    with pytest.raises(PipelineError, match="no column title"):
        read(written(tmp_path / "a.tsv", table(header="ts_utc\tslug")))
    damaged = written(tmp_path / "a.tsv.zst", table(("2026-03-02T06:00Z", "s", "x")))
    damaged.write_bytes(damaged.read_bytes()[:4] + b"nonsense" * 9)
    with pytest.raises(PipelineError, match="cannot be read"):
        read(damaged)
