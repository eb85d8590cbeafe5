"""The example configuration is one that works."""

from pathlib import Path

from monitor.checking import check
from monitor.config import load_settings

EXAMPLE = Path(__file__).parent.parent / "deploy" / "example" / "bellwether.yaml"


def test_the_example_configuration_passes_its_own_check():
    checked = check(load_settings(EXAMPLE))
    assert {rule.name for rule in checked.rules} == {"entity-tone", "entity-burst", "bank-news-turns"}
    assert len(checked.watchlist.entities) == 2
