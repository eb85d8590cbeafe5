"""The README says what the code does."""

import re

from tests.readme import README, TABLES, renewed

ROOT = README.parent


def test_the_tables_are_those_of_the_code():
    text = README.read_text(encoding="utf-8")
    assert all(f"<!-- end of {name} -->" in text for name in TABLES)
    assert renewed(text) == text, "run: python -m tests.readme"


def test_every_make_target_that_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", README.read_text(encoding="utf-8")))
    assert named
    assert named <= targets


def test_every_file_that_it_links_to_exists():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
