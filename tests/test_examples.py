"""The example configuration is one that works."""

from pathlib import Path

from monitor.checking import check
from monitor.config import load_settings
from monitor.watchlist import load_watchlist

EXAMPLE = Path(__file__).parent.parent / "deploy" / "example" / "bellwether.yaml"


def test_the_example_configuration_passes_its_own_check():
    checked = check(load_settings(EXAMPLE))
    names = {"severe-event", "negative-surge", "volume-surge", "entity-tone", "entity-burst", "bank-news-turns"}
    assert {rule.name for rule in checked.rules} == names
    assert len(checked.watchlist.entities) == 2


def test_the_example_of_a_long_watch_list_can_be_read():
    assert len(load_watchlist(EXAMPLE.parent / "watchlist-banks.yaml").entities) == 60
