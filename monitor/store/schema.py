"""The tables, once, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text

SCHEMA_VERSION: Final = 4
"""Raised with every change of a table, together with a step in `monitor.store.migrations`."""

NO_POSITION: Final = -1
"""`next_offset` of a partition that was claimed and never read."""

metadata: Final = MetaData()

# SQLite numbers rows by itself only for its own INTEGER.
_Bytewise: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that both databases sort as Python does."""

_RowNumber = BigInteger().with_variant(Integer(), "sqlite")

meta: Final = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

log_partition: Final = Table(
    "log_partition",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("time_ms", BigInteger),
    Column("consumed", BigInteger, nullable=False, server_default="0"),
    Column("rejected", BigInteger, nullable=False, server_default="0"),
    Column("quiet_ms", BigInteger, nullable=False, server_default="0"),
    Column("complete_ms", BigInteger),
    Column("reported_at_ms", BigInteger, nullable=False, server_default="0"),
)

scored: Final = Table(
    "scored",
    metadata,
    Column("received_ms", BigInteger, primary_key=True),
    Column("topic", _Bytewise, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

tally: Final = Table(
    "tally",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stories", BigInteger, nullable=False),
    Column("copies", BigInteger, nullable=False),
    Column("stale", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
)

event_report: Final = Table(
    "event_report",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("entity", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("story_id", BigInteger, nullable=False),
    Column("document_key", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("headline", Text, nullable=False),
)
"""Reports of severe events that no rule has heard of yet."""

lease: Final = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)

interruption: Final = Table(
    "interruption",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("topic", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("expected_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("found_at_ms", BigInteger, nullable=False),
)

bucket: Final = Table(
    "bucket",
    metadata,
    Column("minute_ms", BigInteger, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stories_negative", Integer, nullable=False),
    Column("stories_neutral", Integer, nullable=False),
    Column("stories_positive", Integer, nullable=False),
    Column("stories_uncertain", Integer, nullable=False),
    Column("copies_negative", Integer, nullable=False),
    Column("copies_neutral", Integer, nullable=False),
    Column("copies_positive", Integer, nullable=False),
    Column("copies_uncertain", Integer, nullable=False),
    Column("score_units", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

story: Final = Table(
    "story",
    metadata,
    Column("story_id", BigInteger, primary_key=True, autoincrement=False),
    Column("first_received_ms", BigInteger, nullable=False, index=True),
    Column("last_received_ms", BigInteger, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("shingles", LargeBinary, nullable=False),
    Column("band_keys", LargeBinary, nullable=False),
    Column("series", Text, nullable=False),
)

document: Final = Table(
    "document",
    metadata,
    Column("document_key", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger),
    Column("topic", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("published_ms", BigInteger),
    Column("uri", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("headline", Text, nullable=False),
    Column("entities", Text, nullable=False),
    Column("standing", Text, nullable=False),
    Column("story_id", BigInteger),
    Column("label", Text, nullable=False),
    Column("tone", Text, nullable=False),
    Column("score_units", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("events", Text, nullable=False, server_default="[]"),
    Index("document_received", "received_ms"),
    Index("document_story", "story_id"),
    Index("document_place", "place", unique=True),
)

publication: Final = Table(
    "publication",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("published", BigInteger, nullable=False),
)

mention: Final = Table(
    "mention",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("received_ms", BigInteger, primary_key=True),
    Column("document_key", BigInteger, primary_key=True),
    Column("tone", Text, nullable=False),
    Column("score_units", Integer, nullable=False),
    sqlite_with_rowid=False,
)

dead_letter: Final = Table(
    "dead_letter",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("topic", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("excerpt", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("replayed_at_ms", BigInteger),
    Index("dead_letter_received", "received_ms"),
)

alert_state: Final = Table(
    "alert_state",
    metadata,
    Column("rule", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("phase", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("clear_since_ms", BigInteger),
    Column("unknown_since_ms", BigInteger),
    Column("incident_id", Text),
)

incident: Final = Table(
    "incident",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("opened_at_ms", BigInteger, nullable=False),
    Column("resolved_at_ms", BigInteger),
    Column("resolve_reason", Text),
    Column("summary", Text, nullable=False),
    Column("display", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("annotations", Text, nullable=False),
    Column("reading", Text),
    Column("decided_by", Text, nullable=False, server_default="threshold"),
    Column("sequence", Integer, nullable=False, server_default="1"),
    Column("evidence", Text, nullable=False, server_default="{}"),
    Index("incident_opened", "opened_at_ms"),
)

incident_change: Final = Table(
    "incident_change",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("reading", Text),
)

judgement: Final = Table(
    "judgement",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("evaluated_until_ms", BigInteger, nullable=False),
)

delivery: Final = Table(
    "delivery",
    metadata,
    Column("delivery_id", Text, primary_key=True),
    Column("receiver", Text, nullable=False),
    Column("incident_id", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("last_result", Text),
    Column("last_status_code", Integer),
    Column("last_detail", Text),
    Column("finished_at_ms", BigInteger),
    Index("delivery_due", "status", "due_at_ms"),
    Index("delivery_incident", "receiver", "incident_id", "sequence"),
)

receiver_state: Final = Table(
    "receiver_state",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("disabled_at_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)
