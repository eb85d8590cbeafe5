"""One YAML file and the environment in, one checked, frozen `Settings` out; every fault is reported at once with its path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    SecretStr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from monitor.errors import ConfigurationError
from monitor.types import Sentiment

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def parse_duration(value: object) -> object:
    """A `timedelta` from text such as "90s", "15m", "1h 30m", "2d"; anything that is not text is left to pydantic.

    A bare number is refused, because nobody remembers its unit. Raises ValueError on text that is no duration.
    """
    if isinstance(value, bool | int | float):
        raise ValueError('a duration needs a unit: write "30s", "15m", "24h" or "2d"')  # noqa: TRY004 (pydantic wants ValueError)
    if not isinstance(value, str):
        return value
    parts = list(_DURATION.finditer(value))
    if not parts or _DURATION.sub("", value).strip():
        raise ValueError(f'{value!r} is no duration: write "30s", "15m", "24h" or "2d"')
    return timedelta(seconds=sum(float(part["number"]) * _UNIT_S[part["unit"]] for part in parts))


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A span of time written with its unit: "500ms", "30s", "15m", "24h", "2d"."""


_Model = TypeVar("_Model", bound=BaseModel)


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def read_secret(secret: SecretStr | None, file: Path | None) -> SecretStr | None:
    """The secret given directly, or read from its `_file` twin with the end of the line stripped.

    Raises ConfigurationError when the file cannot be read.
    """
    if secret is not None or file is None:
        return secret
    try:
        return SecretStr(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), [f"the secret cannot be read: {type(error).__name__}"]) from error


class KafkaSettings(Section):
    """Where and how Kafka is reached."""

    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    """Brokers to ask first, as host:port."""
    topics: tuple[str, ...] = ("news.raw",)
    """Topics to read; they must exist."""
    group_id: str = "bellwether"
    """The consumer group; its instances share the partitions."""
    client_id: str = "bellwether"
    """How the client names itself to the broker."""
    group_instance_id: str | None = None
    """A fixed name of this instance (static membership), so that a quick restart moves no partition."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where reading begins in a partition that has no saved position."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the connection is protected."""
    ssl_cafile: Path | None = None
    """PEM file with the authorities that sign the brokers' certificates."""
    ssl_certfile: Path | None = None
    """PEM file with our own certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """PEM file with the key of `ssl_certfile`."""
    ssl_key_password: SecretStr | None = None
    """Password of `ssl_keyfile`."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How we prove who we are when `security_protocol` begins with SASL."""
    sasl_username: str | None = None
    """SASL user."""
    sasl_password: SecretStr | None = None
    """SASL password; better by environment or `sasl_password_file`."""
    sasl_password_file: Path | None = None
    """A file that holds the SASL password."""
    session_timeout: Duration = timedelta(seconds=30)
    """A member that is silent for this long loses its partitions."""
    max_poll_interval: Duration = timedelta(minutes=5)
    """A member that does not poll for this long leaves the group."""
    max_poll_records: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Most records that one poll brings."""
    request_timeout: Duration = timedelta(seconds=30)
    """How long one request to a broker may take."""

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> Self:
        if self.sasl_password is not None and self.sasl_password_file is not None:
            raise ValueError("sasl_password and sasl_password_file exclude each other")
        if self.security_protocol.startswith("SASL"):
            if self.sasl_username is None:
                raise ValueError(f"security_protocol {self.security_protocol} needs sasl_username")
            if self.sasl_password is None and self.sasl_password_file is None:
                raise ValueError(f"security_protocol {self.security_protocol} needs sasl_password or sasl_password_file")
        return self


class FileSettings(Section):
    """Which file is tailed as a one-partition log."""

    path: str = "-"
    """A JSONL file, or "-" for standard input."""
    timestamps: Literal["document", "arrival"] = "arrival"
    """The time of a record: what the line says (`received_at`, else `versioncreated`, else `firstcreated`; a line that says nothing
    has the time of the line before it), or when it was read."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where reading begins in a file that has no saved position."""
    follow: bool = True
    """Wait for more at the end of the file; false: end the process there."""
    max_line_bytes: Annotated[int, Field(ge=1_024)] = 16_777_216
    """A longer line is handed over cut to this length, and becomes a dead letter."""


class SourceSettings(Section):
    """Where the news comes from."""

    kind: Literal["kafka", "file"] = "kafka"
    """Which of the two sections below is used."""
    kafka: KafkaSettings = KafkaSettings()
    file: FileSettings = FileSettings()


class DocumentSettings(Section):
    """What is accepted as a document."""

    max_bytes: Annotated[int, Field(ge=1_024)] = 1_048_576
    """A larger record is a dead letter."""
    max_age: Duration = timedelta(hours=24)
    """A document published longer before it was received is scored and stored, not counted."""
    max_ahead: Duration = timedelta(minutes=5)
    """A time further in the future is clamped."""
    dead_letter_bytes: Annotated[int, Field(ge=0, le=1_048_576)] = 65_536
    """How much of a rejected record is kept."""


def parse_checkpoint(value: object) -> object:
    """A `Path` from text that begins with "/", "./" or "../", a name on the hub as it is; the rest is left to pydantic.

    Where a folder lies cannot decide: a folder that is missing must not become a question to the hub. Raises ValueError.
    """
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "./", "../")):
        return Path(value)
    if not _HUB_NAME.fullmatch(value):
        raise ValueError('must be a folder that begins with "/", "./" or "../", or a name on the hub, "owner/name"')
    return value


class RoleSettings(Section):
    """A published sequence-classification checkpoint that answers one question in place of the Bellwether checkpoint."""

    checkpoint: Annotated[Path | str | None, BeforeValidator(parse_checkpoint)] = None
    """A folder ("/…", "./…" or "../…") or a name on the Hugging Face hub ("owner/name"); unset: the one of `model.checkpoint`."""
    revision: str | None = None
    """The commit of a checkpoint on the hub; without one, tomorrow's model may be another one."""
    max_tokens: Annotated[int, Field(ge=8, le=8_192)] = 128
    """Of a longer text the headline, the lead and the sentences that name an entity are read, as far as the checkpoint can."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Divides the checkpoint's logits: above 1 for one that is too sure of itself."""
    uncertain_below: Annotated[float, Field(ge=0, le=1)] = 0.0
    """An answer with a lower probability counts as uncertain."""

    @model_validator(mode="after")
    def _is_about_a_checkpoint(self) -> Self:
        given = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        if self.checkpoint is None and given:
            raise ValueError(f"{', '.join(sorted(given))}: nothing without checkpoint")
        if isinstance(self.checkpoint, Path) and self.revision is not None:
            raise ValueError("revision: only a checkpoint on the hub has one")
        return self


class TopicSettings(RoleSettings):
    """Who answers what a text is about."""

    labels: Mapping[str, Annotated[str, Field(pattern=r"\S")] | None] = {}
    """Our name for a label of the checkpoint, where it is another one; null: an answer that is never given."""


class SentimentSettings(RoleSettings):
    """Who answers how a text speaks."""

    labels: Mapping[str, Sentiment | None] = {}
    """Which of negative, neutral and positive a label of the checkpoint stands for; null: an answer that is never given. Labels of
    these names need no entry."""


class ModelSettings(Section):
    """Which classifier runs where."""

    checkpoint: Path | None = None
    """A folder with a Bellwether checkpoint; unset: the one shipped."""
    base: Path | None = None
    """A folder with the base encoder's weights; unset: our cache, then the hub."""
    topic: TopicSettings = TopicSettings()
    sentiment: SentimentSettings = SentimentSettings()
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """"auto" takes CUDA where there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the encoder computes in; "auto": fp32 on a CPU, bf16 on a GPU that has it, else fp16."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of the encoder; 0: as many as torch likes."""
    disabled: bool = False
    """Answer "neutral" without a model: to measure everything else."""


class BatchSettings(Section):
    """How documents are grouped for the classifier and the database."""

    max_tokens: Annotated[int, Field(ge=512)] = 8_192
    """A batch is full at this many tokens ..."""
    max_documents: Annotated[int, Field(ge=1)] = 512
    """... or this many records ..."""
    max_wait: Duration = timedelta(milliseconds=500)
    """... or when its oldest record is this old."""


class StorySettings(Section):
    """How copies of one story are recognised."""

    window: Duration = timedelta(hours=48)
    """How long after its first document a story takes up copies; the same text later is news again."""
    min_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of common shingles that makes two texts one story ..."""
    min_containment: Annotated[float, Field(gt=0, le=1)] = 0.8
    """... or share of the shorter text's shingles that the longer one holds."""


class TimeSettings(Section):
    """How stream time moves when records do not."""

    idle_after: Duration = timedelta(seconds=10)
    """A partition confirmed to be at its end for this long no longer holds the watermark back."""
    blind_after: Duration = timedelta(minutes=30)
    """Without any counted document for this long the feed is blind: nothing fires, nothing resolves."""


class StoreSettings(Section):
    """Where counts, positions, incidents and the outbox are kept."""

    url: SecretStr | None = None
    """An SQLAlchemy URL; unset: `sqlite:///bellwether.db` in the working folder."""
    url_file: Path | None = None
    """A file that holds the URL."""
    keep_documents: Duration = timedelta(days=14)
    """Documents and stories older than this are pruned."""
    keep_buckets: Duration = timedelta(days=90)
    """Minute buckets older than this are pruned."""
    keep_dead_letters: Duration = timedelta(days=30)
    """Dead letters older than this are pruned."""
    keep_deliveries: Duration = timedelta(days=30)
    """Finished deliveries older than this are pruned."""

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if self.url is not None and self.url_file is not None:
            raise ValueError("url and url_file exclude each other")
        return self

    def database_url(self) -> str:
        """The URL to open, with whatever password it holds. Raises ConfigurationError when its file cannot be read."""
        secret = read_secret(self.url, self.url_file)
        return "sqlite:///bellwether.db" if secret is None else secret.get_secret_value()


class OutputSettings(Section):
    """Where scored documents are published, for others to build on."""

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = None
    """A Kafka topic for scored documents, such as `news.scored`, in the cluster of `source.kafka`; it must exist. Unset: none."""


def parse_timezone(value: object) -> object:
    """A `ZoneInfo` from a name of the IANA database such as "Asia/Shanghai". Raises ValueError on a name that is not in it."""
    if not isinstance(value, str):
        return value
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError('is no time zone of the IANA database, such as "Europe/Frankfurt" or "Asia/Shanghai"') from error


def exactly_one(section: BaseModel, name: str) -> None:
    """Raises ValueError unless either the secret `name` or its `_file` twin is given."""
    if (getattr(section, name) is None) == (getattr(section, f"{name}_file") is None):
        raise ValueError(f"give exactly one of {name} and {name}_file")


def at_most_one(section: BaseModel, name: str) -> None:
    """Raises ValueError when both the secret `name` and its `_file` twin are given."""
    if getattr(section, name) is not None and getattr(section, f"{name}_file") is not None:
        raise ValueError(f"{name} and {name}_file exclude each other")


class ReceiverSettings(Section):
    """Who is told about incidents: what every kind of receiver has."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    """Names the receiver in rules, metrics and the outbox."""
    language: Literal["en", "zh"] = "en"
    """What messages are written in: English or Chinese."""
    timezone: Annotated[ZoneInfo, BeforeValidator(parse_timezone), PlainSerializer(str)] = ZoneInfo("UTC")
    """The clock by which messages name times."""
    console_url: Annotated[str, Field(pattern=r"^https?://[^\s<>\"']+$", max_length=1_000)] | None = None
    """A page about an incident, to which messages link; `{incident_id}` in it is filled in."""
    allow_private_addresses: bool = False
    """Permit loopback, link-local and private addresses."""
    timeout: Duration = timedelta(seconds=15)
    """The whole attempt, from name resolution to the last byte, takes no longer."""
    retry_for: Duration = timedelta(days=3)
    """How long a delivery is tried before it is abandoned."""


class PostedReceiverSettings(ReceiverSettings):
    """A receiver whose messages are posted to a URL of its own."""

    url: SecretStr | None = None
    """Where messages are posted; of an Alertmanager, what `/api/v2/alerts` is appended to."""
    url_file: Path | None = None
    """A file that holds the URL."""
    allow_http: bool = False
    """Permit http:// (without TLS)."""

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        exactly_one(self, "url")
        return self


class WebhookSettings(PostedReceiverSettings):
    """A program that takes webhooks, signed as Standard Webhooks lays down."""

    kind: Literal["webhook"] = "webhook"
    """What kind of receiver this is."""
    secret: SecretStr | None = None
    """The signing secret, `whsec_` and base64 of 24 to 64 bytes."""
    secret_file: Path | None = None
    """A file that holds the signing secret; several lines: the first signs first, all sign (rotation)."""
    body: Literal["bellwether", "alertmanager"] = "bellwether"
    """The body's shape: our own schema, or version 4 of Alertmanager's webhooks."""

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        exactly_one(self, "secret")
        return self


class AlertmanagerSettings(PostedReceiverSettings):
    """A Prometheus Alertmanager, through its API v2."""

    kind: Literal["alertmanager"]
    """What kind of receiver this is."""
    resend_every: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=60)
    """How often open incidents are told again; below Alertmanager's `resolve_timeout` (5 minutes unless configured)."""


class SlackSettings(PostedReceiverSettings):
    """A Slack channel, through its incoming webhook."""

    kind: Literal["slack"]
    """What kind of receiver this is."""


class TeamsSettings(PostedReceiverSettings):
    """A Microsoft Teams channel or chat, through a workflow that starts with a webhook request."""

    kind: Literal["teams"]
    """What kind of receiver this is."""


class SignedBotSettings(PostedReceiverSettings):
    """A chat's bot that may ask for a signature."""

    secret: SecretStr | None = None
    """The bot's signing secret, where it asks for a signature."""
    secret_file: Path | None = None
    """A file that holds the bot's signing secret."""

    @model_validator(mode="after")
    def _no_two_secrets(self) -> Self:
        at_most_one(self, "secret")
        return self


class FeishuSettings(SignedBotSettings):
    """A group in Feishu or Lark, through its custom bot."""

    kind: Literal["feishu"]
    """What kind of receiver this is."""


class DingTalkSettings(SignedBotSettings):
    """A group in DingTalk, through its custom robot."""

    kind: Literal["dingtalk"]
    """What kind of receiver this is."""


class WeComSettings(PostedReceiverSettings):
    """A group in WeCom, through its robot."""

    kind: Literal["wecom"]
    """What kind of receiver this is."""


class PagerDutySettings(ReceiverSettings):
    """A service in PagerDuty, through its Events API v2."""

    kind: Literal["pagerduty"]
    """What kind of receiver this is."""
    routing_key: SecretStr | None = None
    """The integration key of the service."""
    routing_key_file: Path | None = None
    """A file that holds the integration key."""
    url: str = "https://events.pagerduty.com/v2/enqueue"
    """Where events are posted; in the service region EU `https://events.eu.pagerduty.com/v2/enqueue`."""
    allow_http: bool = False
    """Permit http:// (without TLS)."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        exactly_one(self, "routing_key")
        return self


class MailSettings(ReceiverSettings):
    """People with mailboxes, through an SMTP server."""

    kind: Literal["mail"]
    """What kind of receiver this is."""
    host: str
    """The server that takes our mail."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    """Its port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """TLS after a greeting (port 587), from the first byte (port 465), or none: for a relay that needs no password."""
    sender: str
    """The address that mails come from."""
    recipients: tuple[str, ...]
    """The addresses that mails go to."""
    username: str | None = None
    """The user, where the server asks for one."""
    password: SecretStr | None = None
    """The user's password."""
    password_file: Path | None = None
    """A file that holds the password."""

    @model_validator(mode="after")
    def _no_two_passwords(self) -> Self:
        at_most_one(self, "password")
        return self


def receiver_kind(value: object) -> object:
    """The `kind` of a receiver; one that names none is a webhook."""
    return value.get("kind", "webhook") if isinstance(value, Mapping) else getattr(value, "kind", None)


AnyReceiverSettings = Annotated[
    Annotated[WebhookSettings, Tag("webhook")]
    | Annotated[AlertmanagerSettings, Tag("alertmanager")]
    | Annotated[SlackSettings, Tag("slack")]
    | Annotated[TeamsSettings, Tag("teams")]
    | Annotated[FeishuSettings, Tag("feishu")]
    | Annotated[DingTalkSettings, Tag("dingtalk")]
    | Annotated[WeComSettings, Tag("wecom")]
    | Annotated[PagerDutySettings, Tag("pagerduty")]
    | Annotated[MailSettings, Tag("mail")],
    Discriminator(receiver_kind),
]
"""One receiver of any kind."""


class WebSettings(Section):
    """Where metrics and health are served."""

    host: str = "127.0.0.1"
    """The address to bind; loopback unless you say otherwise."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9_464
    """The port; 0: any free one."""
    refresh: Duration = timedelta(seconds=2)
    """/metrics is rendered at most this often and served from memory in between."""


class LogSettings(Section):
    """How events are logged."""

    format: Literal["auto", "console", "json"] = "auto"
    """"auto": readable on a terminal, JSON otherwise."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""


class Settings(BaseSettings):
    """The whole configuration of the daemon."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="BELLWETHER_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    source: SourceSettings = SourceSettings()
    documents: DocumentSettings = DocumentSettings()
    model: ModelSettings = ModelSettings()
    batch: BatchSettings = BatchSettings()
    stories: StorySettings = StorySettings()
    time: TimeSettings = TimeSettings()
    store: StoreSettings = StoreSettings()
    output: OutputSettings = OutputSettings()
    watchlist_file: Path | None = None
    """The watched entities; relative to this file."""
    rules_file: Path | None = None
    """The rules; relative to this file."""
    receivers: tuple[AnyReceiverSettings, ...] = ()
    """Who is told about incidents."""
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file (which arrives as arguments)."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="after")
    def _output_is_not_read(self) -> Self:
        if self.source.kind == "kafka" and self.output.topic in self.source.kafka.topics:
            raise ValueError("output: topic must not be one of source.kafka.topics")
        return self

    @model_validator(mode="after")
    def _receiver_names_are_unique(self) -> Self:
        names = [receiver.name for receiver in self.receivers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"receivers: names must be unique; twice: {', '.join(twice)}")
        return self


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ConfigurationError with the line where it is broken."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), [f"is not UTF-8 (byte {error.start})"]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), [f"is not YAML: {' '.join(str(error).split())}"]) from error


def describe_faults(error: ValidationError) -> list[str]:
    """Pydantic's faults as "path.to.field: what is wrong", without the offending value (it may be a secret)."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in fault["loc"]) or "(whole file)"
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        faults.append(f"{path}: {message}")
    return faults


def load_settings(path: Path | None) -> Settings:
    """The configuration of `path` (None: the defaults) under the environment, with paths in it resolved against its folder.

    Raises ConfigurationError that lists every fault.
    """
    content = {} if path is None else read_yaml(path)
    origin = "the environment" if path is None else str(path)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigurationError(origin, ["(whole file): must be a mapping of sections"])
    try:
        settings = Settings(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise ConfigurationError(origin, describe_faults(error)) from error
    return _resolve_paths(settings, Path() if path is None else path.parent)


def _resolve_paths(settings: Settings, folder: Path) -> Settings:
    """The same settings with every relative path made absolute from the configuration file's folder."""

    def resolve(model: _Model) -> _Model:
        changes: dict[str, Any] = {}
        for name in type(model).model_fields:
            value = getattr(model, name)
            if isinstance(value, Path):
                changes[name] = value if value.is_absolute() else (folder / value).resolve()
            elif isinstance(value, BaseModel):
                changes[name] = resolve(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
                changes[name] = tuple(resolve(item) for item in value)
        return model.model_copy(update=changes)

    return resolve(settings)
