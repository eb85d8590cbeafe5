"""The tables of the README, written from the code: `python -m tests.readme` renews them, and a test holds the file to them."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alerts.types import Severity
from monitor.cli import app
from monitor.config import Settings
from monitor.metrics import Metrics

README = Path(__file__).parent.parent / "README.md"
SCHEMA = README.parent / "monitor" / "schemas" / "news.raw.v1.json"


def cell(text: str) -> str:
    """Text as the cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def model_of(field: FieldInfo) -> tuple[type[BaseModel] | None, str]:
    """The section that a field holds, if it holds one, and how its items are addressed."""
    annotation: Any = field.annotation
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item, "[]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    return None, ""


def kinds_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The kinds of section that a list may hold, where it may hold several."""
    annotation: Any = field.annotation
    if get_origin(annotation) is not tuple or get_origin(get_args(annotation)[0]) is not Annotated:
        return []
    union = get_args(get_args(annotation)[0])[0]
    return [get_args(member)[0] for member in get_args(union)]


def kinds_rows(kinds: list[type[BaseModel]], prefix: str) -> list[list[str]]:
    """What every kind has, once; then what some have, with their names."""
    shared = set.intersection(*(set(kind.model_fields) for kind in kinds)) - {"kind"}
    names = {kind: get_args(kind.model_fields["kind"].annotation)[0] for kind in kinds}
    rows = [[f"`{prefix}kind`", "`webhook`", f"What kind of receiver this is: {', '.join(names.values())}."]]
    told: dict[tuple[str, ...], list[str]] = {}
    for kind in kinds:
        for name, field in kind.model_fields.items():
            if name != "kind":
                row = (f"`{prefix}{name}`", default_text(field), field.description or "")
                told.setdefault(row, []).append(names[kind])
    rows += [list(row) for row in told if row[0].strip("`").removeprefix(prefix) in shared]
    for (key, default, meaning), who in told.items():
        if key.strip("`").removeprefix(prefix) not in shared:
            others = [other for other in names.values() if other not in who]
            shown = f"all but {', '.join(others)}" if len(others) < len(who) else ", ".join(who)
            rows.append([key, default, f"({shown}) {meaning}"])
    return rows


def duration_text(seconds: float) -> str:
    """A span of time as a person would write it in the configuration."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    match value:
        case None:
            return "–"
        case timedelta():
            return f"`{duration_text(value.total_seconds())}`"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def settings_rows(model: type[BaseModel], prefix: str = "") -> list[list[str]]:
    rows = []
    for name, field in model.model_fields.items():
        inner, suffix = model_of(field)
        if kinds := kinds_of(field):
            rows += kinds_rows(kinds, f"{prefix}{name}[].")
        elif inner is not None:
            rows += settings_rows(inner, f"{prefix}{name}{suffix}.")
        else:
            rows.append([f"`{prefix}{name}`", default_text(field), field.description or ""])
    return rows


def commands_table() -> str:
    rows = []

    def collect(command: Any, path: str) -> None:
        if hasattr(command, "commands") and command.commands:
            if path and command.invoke_without_command:
                rows.append([f"`bellwether {path}`", command.help.splitlines()[0]])
            for name, inner in sorted(command.commands.items()):
                collect(inner, f"{path} {name}".strip())
        else:
            rows.append([f"`bellwether {path}`", command.help.splitlines()[0]])

    collect(typer.main.get_command(app), "")
    return table(["command", "what it does"], rows)


def metrics_table() -> str:
    registry = CollectorRegistry()
    Metrics(registry, [("rule", Severity.WARNING)], ["receiver"])
    rows = []
    for family in sorted(registry.collect(), key=lambda family: family.name):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        rows.append([f"`{family.name}{suffix}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation])
    return table(["metric", "type", "labels", "what it says"], rows)


def kind_of(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a field of the wire may hold."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return kind_of(schema["$defs"][name], schema) + (", RFC 3339" if "time" in name.lower() else "")
    if "enum" in field or "const" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    kinds = field.get("type", [])
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def wire_table() -> str:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    required = set(schema["required"])
    rows = []
    for name, field in schema["properties"].items():
        rows.append([f"`{name}`", kind_of(field, schema), "yes" if name in required else "", field["description"]])
    return table(["field", "type", "required", "meaning"], rows)


TABLES = {
    "commands": commands_table,
    "settings": lambda: table(["key", "default", "meaning"], settings_rows(Settings)),
    "metrics": metrics_table,
    "wire": wire_table,
}


def renewed(text: str) -> str:
    """The README with every table as the code has it."""
    for name, write in TABLES.items():
        begin, end = f"<!-- {name}: written by `python -m tests.readme` -->", f"<!-- end of {name} -->"
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{write()}\n{end}", text, flags=re.DOTALL)  # noqa: B023
    return text


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
