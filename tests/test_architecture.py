"""The house: who may import whom, and what names are not ours."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("monitor", "alerts", "pipelines")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# The core may know what an alert is made of where things are wired together; everything else of the daemon may not.
WIRING = {
    "monitor/assembly.py",
    "monitor/daemon.py",
    "monitor/checking.py",
    "monitor/judging.py",
    "monitor/view.py",
    "monitor/metrics.py",
    "monitor/normal.py",
    "monitor/cli.py",
    "monitor/rules_file.py",
    "monitor/store/incidents.py",
    "monitor/store/outbox.py",
    "monitor/store/retention.py",
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_floor_of_the_house_may(path):
    name = str(path.relative_to(ROOT))
    for module in imports(path):
        if name.startswith("alerts/"):
            assert not within(module, "pipelines"), module
            if within(module, "monitor"):
                assert module in {"monitor.types", "monitor.errors"}, f"alerts may not import {module}"
        elif name.startswith("monitor/"):
            assert not within(module, "pipelines"), module
            if within(module, "alerts") and not name.startswith("monitor/demo/"):
                assert name in WIRING, f"{name} is no place where things are wired together, and imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_a_sentence_and_nothing_runs_at_import(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the first line of a module says what it turns into what"
    for node in tree.body:
        # Typer is told of its sub-commands where they are declared.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "add_typer" not in ast.unparse(node):
            pytest.fail(f"line {node.lineno} calls something when the module is imported")


def test_no_module_is_named_after_nothing():
    banned = {"utils", "util", "helpers", "helper", "base", "common", "misc", "manager", "handler"}
    assert not [path for path in MODULES if path.stem in banned]
