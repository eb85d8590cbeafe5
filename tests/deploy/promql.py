"""A PromQL expression to what it asks for: series, labels and values. Prometheus itself judges the syntax."""

import re
from collections.abc import Iterator, Mapping

from tests.deploy.exposition import TARGET_LABELS

_WORD = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*")
_SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)?\{(?P<matchers>[^}]*)\}")
_MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<comparison>=~|!~|!=|=)\s*"(?P<value>[^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\((?P<labels>[^)]*)\)")
_NO_SERIES = {
    "absent", "and", "by", "count", "deriv", "histogram_quantile", "increase", "label_values", "max", "min", "offset", "on", "or",
    "rate", "sort_desc", "sum", "time", "topk", "unless",
}  # fmt: skip


def faults(expression: str, known: Mapping[str, Mapping[str, set[str]]]) -> list[str]:
    """What the expression asks for that is not there: series, labels of a series, values of a label."""
    bare = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", re.sub(r"\{[^}]*\}", "", expression)))
    found = [f"no series {word}" for word in sorted(set(_WORD.findall(bare)) - _NO_SERIES - known.keys())]
    found += [fault for selector in _SELECTOR.finditer(expression) for fault in _selector_faults(selector, known)]
    labels = TARGET_LABELS.union({"le"}, *(labels.keys() for labels in known.values()))
    for grouping in _GROUPING.finditer(expression):
        named = {label.strip() for label in grouping["labels"].split(",")}
        found += [f"no series has the label {label}" for label in sorted(named - labels)]
    return found


def _selector_faults(selector: re.Match[str], known: Mapping[str, Mapping[str, set[str]]]) -> Iterator[str]:
    name = selector["name"]
    if name not in known:
        yield f"a selector without a series that is known: {selector[0]}"
        return
    for matcher in _MATCHER.finditer(selector["matchers"]):
        label, value = matcher["label"], matcher["value"]
        if label in TARGET_LABELS:
            continue
        if label not in known[name]:
            yield f"{name} has no label {label}"
        elif matcher["comparison"] in {"=", "!="} and known[name][label] and value not in known[name][label]:
            yield f"{name}: {label} is never {value!r}"
