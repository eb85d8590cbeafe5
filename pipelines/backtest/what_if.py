"""Rules and "what if a field had another value" in, the rules and their variants out: all are judged in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from alerts.types import Rule
from monitor.config import read_yaml
from monitor.errors import ConfigurationError
from monitor.rules_file import load_rules

_FORM: Final = 'is not of the form "RULE.FIELD=VALUE,VALUE", as "tone.level=0.5,0.7"'
_LONGEST_NAME: Final = 63


@dataclass(frozen=True, slots=True)
class Variant:
    """A rule with one field changed: `name` is the variant's own, `rule` that of the rule that it varies."""

    name: str
    rule: str
    field: str
    value: str


def load_variants(
    path: Path, asked: Sequence[str], *, entities: Collection[str], topics: Collection[str]
) -> tuple[tuple[Rule, ...], tuple[Variant, ...]]:
    """The rules of a file followed by the variants that `asked` names, and what each variant is.

    A variant is checked as any rule is. Raises ConfigurationError with every fault of the file or of a variant.
    """
    rules = load_rules(path, entities=entities, topics=topics)
    items = {item["name"]: item for item in (read_yaml(path) or {}).get("rules") or ()}
    variants: list[tuple[Variant, dict[str, Any]]] = []
    problems: list[str] = []
    for text in asked:
        target, equals, values = text.partition("=")
        rule, dot, field = target.strip().rpartition(".")
        if not (equals and dot and values.strip()):
            problems.append(f"{text!r} {_FORM}")
        elif rule not in items:
            problems.append(f"{text!r}: there is no rule {rule!r}")
        else:
            for value in values.split(","):
                name = f"{rule}.{field}.{value.strip()}"[-_LONGEST_NAME:]
                varied = items[rule] | {field: yaml.safe_load(value), "name": name}
                variants.append((Variant(name, rule, field, value.strip()), varied))
    if problems:
        raise ConfigurationError("--what-if", problems)
    if not variants:
        return rules, ()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "what-if.yaml"
        written.write_text(yaml.safe_dump({"rules": [item for _, item in variants]}, allow_unicode=True), encoding="utf-8")
        try:
            varied_rules = load_rules(written, entities=entities, topics=topics)
        except ConfigurationError as error:
            raise ConfigurationError("--what-if", error.problems) from error
    return (*rules, *varied_rules), tuple(variant for variant, _ in variants)
