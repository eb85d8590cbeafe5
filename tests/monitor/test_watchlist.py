"""Who a text is about: against an oracle of plain regular expressions, and by the cases that matter."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import ConfigurationError
from monitor.watchlist import Alias, Entity, WatchList, load_watchlist


def listed(**entities):
    """A watch list of entities by id, each a list of aliases; the first is the name."""
    return WatchList([Entity(name, aliases[0], tuple(map(Alias, aliases[1:]))) for name, aliases in entities.items()])


def oracle(entities, text):
    """The ids by the definition: every match of every alias as a regular expression, then the two rules about spans."""

    def spans(alias):
        flags = re.IGNORECASE if alias.case == "ignore" else 0
        left = r"(?<!\w)" if re.match(r"\w", alias.text) else ""
        right = r"(?!\w)" if re.search(r"\w$", alias.text) else ""
        whole = re.compile(f"(?={left}({re.escape(alias.text)}){right})", flags)
        return [match.span(1) for match in whole.finditer(text)]

    named = [(span, place) for place, entity in enumerate(entities) for alias in entity.aliases for span in spans(alias)]
    named += [(span, place) for place, entity in enumerate(entities) for span in spans(Alias(entity.name))]
    excluded = [(span, place) for place, entity in enumerate(entities) for alias in entity.exclusions for span in spans(alias)]

    def inside(inner, outer):
        return outer[0] <= inner[0] and inner[1] <= outer[1]

    left = [(span, place) for span, place in named if not any(place == other and inside(span, out) for out, other in excluded)]
    kept = [
        (span, place)
        for span, place in left
        if not any(place != other and span != out and inside(span, out) for out, other in left)
    ]
    first = {}
    for (start, end), place in sorted(kept, key=lambda item: (item[0][0], -item[0][1])):
        first.setdefault(place, (start, -end))
    return tuple(entities[place].id for place in sorted(first, key=first.get))


words = st.sampled_from(["Ann", "Ann Bo", "Bo", "Bo Cy", "Cy", "ann", "Ann Bo Cy", "$ANN", "Dé"])
aliases = st.lists(st.builds(Alias, words, st.sampled_from(["exact", "ignore"])), max_size=3)


@st.composite
def watched(draw):
    names = draw(st.lists(words, min_size=1, max_size=4, unique_by=str.casefold))
    taken = {name.casefold() for name in names}
    entities = []
    for place, name in enumerate(names):
        own = [alias for alias in draw(aliases) if alias.text.casefold() not in taken]
        taken |= {alias.text.casefold() for alias in own}
        entities.append(Entity(f"e{place}", name, tuple(own), tuple(draw(st.lists(st.builds(Alias, words), max_size=2)))))
    return entities


texts = st.lists(st.sampled_from(["Ann", "Bo", "Cy", "ann", "BO", "$ANN", "Dé", "x", "'s", ",", "Anna", "_"]), max_size=9)


@given(watched(), texts, st.sampled_from([" ", ""]))
@settings(max_examples=300, deadline=None)
def test_a_text_names_whom_plain_regular_expressions_find(entities, parts, between):
    text = between.join(parts)
    assert WatchList(entities).match(text) == oracle(entities, text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Ally shares fall", ("ally",)),
        ("a close ally of the minister", ()),
        ("ALLY of the state", ()),
        ("Really Allyson", ()),
        ("Ally's profit", ("ally",)),
        ("(Ally)", ("ally",)),
        ("Ally, then Halden", ("ally", "halden")),
        ("Halden and Ally and Halden", ("halden", "ally")),
        ("监管部门称包商银行被接管", ("baoshang",)),
        ("$HLDN falls", ("halden",)),
        ("A$HLDN", ("halden",)),
    ],
)
def test_names_are_found_as_they_are_written_on_the_edges_of_words(text, ids):
    watchlist = listed(ally=["Ally Financial", "Ally"], halden=["Halden Bank", "Halden", "$HLDN"], baoshang=["包商银行"])
    assert watchlist.match(text) == ids


def test_a_name_inside_a_longer_name_of_another_is_not_meant():
    watchlist = listed(santander=["Santander"], consumer=["Santander Consumer"])
    assert watchlist.match("Santander Consumer grows") == ("consumer",)
    assert watchlist.match("Santander Consumer grows, Santander too") == ("consumer", "santander")


def test_the_order_is_that_of_the_first_mention_and_an_empty_list_finds_nothing():
    assert WatchList().match("anything") == ()


FAULTS = {
    "the same id twice": ("entities: [{id: a, name: Ann}, {id: a, name: Bob}]", "entities.1.id"),
    "one alias for two": ("entities: [{id: a, name: Ann}, {id: b, name: Bob, aliases: [Ann]}]", "entities.1"),
    "an alias of one letter": ("entities: [{id: a, name: Ann, aliases: [A]}]", "entities.0.aliases.0"),
    "a blank alias": ("entities: [{id: a, name: Ann, aliases: ['  ']}]", "entities.0.aliases.0"),
    "a bad id": ("entities: [{id: A B, name: Ann}]", "entities.0.id"),
    "no name": ("entities: [{id: a}]", "entities.0.name"),
    "an unknown key": ("entities: [{id: a, name: Ann, alias: [x]}]", "entities.0.alias"),
    "a bad case": ("entities: [{id: a, name: Ann, aliases: [{text: Annie, case: any}]}]", "entities.0.aliases.0"),
}


@pytest.mark.parametrize(("text", "place"), FAULTS.values(), ids=FAULTS)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path, text, place):
    path = tmp_path / "watchlist.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_watchlist(path)
    assert place in str(caught.value)


def test_a_file_says_who_is_watched(tmp_path):
    path = tmp_path / "watchlist.yaml"
    text = "entities: [{id: a, name: Ann Co, aliases: [Ann, {text: ann co, case: ignore}], exclusions: [Ann Arbor]}]"
    path.write_text(text, encoding="utf-8")
    watchlist = load_watchlist(path)
    assert watchlist.match("ANN CO up") == ("a",)
    assert watchlist.match("Ann Arbor rain") == ()
    assert dict(watchlist.names) == {"a": "Ann Co"}
