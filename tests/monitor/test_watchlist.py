"""Who a text is about: against an oracle of plain regular expressions, and by the cases that matter."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.text import join, normalise
from monitor.errors import ConfigurationError
from monitor.types import Mention
from monitor.watchlist import Alias, Entity, WatchList, find_name, load_watchlist


def listed(**entities):
    """A watch list of entities by id, each a list of aliases; the first is the name."""
    return WatchList([Entity(name, aliases[0], tuple(map(Alias, aliases[1:]))) for name, aliases in entities.items()])


def named(watchlist, text):
    """The ids, in order of first mention."""
    return tuple(dict.fromkeys(mention.entity for mention in watchlist.find(text)))


def oracle(entities, text):
    """The mentions by the definition: every match of every alias as a regular expression, then the rules about spans."""

    def spans(alias):
        flags = re.IGNORECASE if alias.case == "ignore" else 0
        left = r"(?:(?<!\w)|(?=[一-鿿])|(?<=[一-鿿]))" if re.match(r"\w", alias.text) else ""
        right = r"(?:(?!\w)|(?<=[一-鿿])|(?=[一-鿿]))" if re.search(r"\w$", alias.text) else ""
        whole = re.compile(f"(?={left}({re.escape(alias.text)}){right})", flags)
        return [match.span(1) for match in whole.finditer(text)]

    named = [(span, place) for place, entity in enumerate(entities) for alias in entity.aliases for span in spans(alias)]
    named += [(span, place) for place, entity in enumerate(entities) for span in spans(Alias(entity.name))]
    excluded = [(span, place) for place, entity in enumerate(entities) for alias in entity.exclusions for span in spans(alias)]

    def inside(inner, outer):
        return outer[0] <= inner[0] and inner[1] <= outer[1]

    left = [(span, place) for span, place in named if not any(place == other and inside(span, out) for out, other in excluded)]
    kept = {(span, place) for span, place in left if not any(span != out and inside(span, out) for out, _ in left)}
    return tuple(sorted(Mention(*span, entities[place].id) for span, place in kept))


words = st.sampled_from(["Ann", "Ann Bo", "Bo", "Bo Cy", "Cy", "ann", "Ann Bo Cy", "$ANN", "Dé", "包商", "包商银行", "Ann银行"])
aliases = st.lists(st.builds(Alias, words, st.sampled_from(["exact", "ignore"])), max_size=3)


@st.composite
def watched(draw):
    names = draw(st.lists(words, min_size=1, max_size=4, unique_by=str.casefold))
    taken = {name.casefold() for name in names}
    entities = []
    for place, name in enumerate(names):
        own = [alias for alias in draw(aliases) if alias.text.casefold() not in taken]
        taken |= {alias.text.casefold() for alias in own}
        entities.append(Entity(f"e{place}", name, tuple(own), tuple(draw(aliases))))
    return entities


texts = st.lists(
    st.sampled_from(["Ann", "Bo", "Cy", "ann", "BO", "$ANN", "Dé", "x", "'s", ",", "Anna", "_", "7", "包商", "银行"]), max_size=9
)


@given(watched(), texts, st.sampled_from([" ", ""]))
@settings(max_examples=300, deadline=None)
def test_a_text_names_whom_plain_regular_expressions_find_where_they_find_it(entities, parts, between):
    text = between.join(parts)
    assert WatchList(entities).find(text) == oracle(entities, text)


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
        ("包商银行", ("baoshang",)),
        ("HSBC包商银行2019", ("baoshang",)),
        ("Halden在上海", ("halden",)),
        ("上海Halden", ("halden",)),
        ("Halden가", ("halden",)),
        ("Haldenの", ("halden",)),
        ("Haldens", ()),
        ("2Halden", ()),
        ("Halden_2", ()),
        ("xHalden", ()),
        ("Halden", ("halden",)),
        ("Halden\u2019s", ("halden",)),
        ("Ally\u00a0Financial", ("ally",)),
        ("$HLDN falls", ("halden",)),
        ("A$HLDN", ("halden",)),
    ],
)
def test_names_are_found_as_they_are_written_on_the_edges_of_words(text, ids):
    watchlist = listed(ally=["Ally Financial", "Ally"], halden=["Halden Bank", "Halden", "$HLDN"], baoshang=["包商银行"])
    assert named(watchlist, text) == ids


def test_a_name_inside_a_longer_name_of_another_is_not_meant():
    watchlist = listed(santander=["Santander"], consumer=["Santander Consumer"])
    assert named(watchlist, "Santander Consumer grows") == ("consumer",)
    assert named(watchlist, "Santander Consumer grows, Santander too") == ("consumer", "santander")


def test_an_empty_list_finds_nothing():
    assert named(WatchList(), "anything") == ()
    assert dict(WatchList().entities) == dict(WatchList().names) == {}


def test_an_exclusion_speaks_for_its_own_entity_only():
    watchlist = WatchList([Entity("ally", "Ally", (), (Alias("ally mcbeal", "ignore"),)), Entity("show", "McBeal")])
    assert named(watchlist, "Ally McBeal") == ("show",)
    assert named(watchlist, "Ally McBeal on Ally") == ("show", "ally")
    assert named(watchlist, "Ally McBeals") == ("ally",)


def test_an_excluded_name_hides_no_shorter_one():
    watchlist = WatchList(
        [Entity("bank", "Santander"), Entity("consumer", "Santander Consumer", (), (Alias("Santander Consumer Day"),))]
    )
    assert named(watchlist, "Santander Consumer Day") == ("bank",)


def test_an_exclusion_inside_an_exclusion_shortens_nothing():
    watchlist = WatchList([Entity("cy", "Cy", (), (Alias("Ann Bo Cy"), Alias("Bo")))])
    assert named(watchlist, "Ann Bo Cy") == ()
    assert named(watchlist, "Ann Bo Cy Cy") == ("cy",)


def test_a_name_across_the_end_of_another_counts_and_one_inside_both_does_not():
    watchlist = listed(a=["Ann Bo"], b=["Bo Cy"], c=["Bo"])
    assert named(watchlist, "Ann Bo Cy") == ("a", "b")


def test_without_regard_to_case_places_stay_places_in_the_text():
    watchlist = WatchList(
        [Entity("ally", "Ally", (Alias("ally bank", "ignore"),)), Entity("fuss", "Fuß", (Alias("gruß ag", "ignore"),))]
    )
    assert named(watchlist, "İİİ ALLY BANK") == ("ally",)
    assert named(watchlist, "İİİALLY BANK") == ()
    assert named(watchlist, "ßß ALLY BANKß") == ()
    assert named(watchlist, "die GRUß AG") == ("fuss",)


def test_composed_and_decomposed_letters_are_the_same():
    composed, decomposed = "Crédit Agricole", "Cre\u0301dit Agricole"
    for written in (composed, decomposed):
        watchlist = WatchList([Entity("ca", written, (Alias("société x", "ignore"),))])
        assert watchlist.find(normalise(f"bei {composed}")) == watchlist.find(normalise(f"bei {decomposed}"))
        assert watchlist.find(normalise(f"bei {decomposed}")) == (Mention(4, 19, "ca"),)
        assert named(watchlist, normalise("SOCIE\u0301TE\u0301 X")) == ("ca",)


def test_a_name_is_found_behind_the_entities_of_a_web_page():
    text = join("AT&amp;T gains", "Rivals of AT&#38;T &lt;lose&gt;")
    assert text == "AT&T gains\nRivals of AT&T <lose>"
    assert listed(t=["AT&T"]).find(text) == (Mention(0, 4, "t"), Mention(21, 25, "t"))


def test_full_width_letters_and_signs_are_the_ordinary_ones():
    watchlist = listed(t=["AT&T"], h=["海登（中国）"])
    assert watchlist.find("ＡＴ＆Ｔ与海登(中国)") == (Mention(0, 4, "t"), Mention(5, 11, "h"))
    assert watchlist.find("与AT&T和海登（中国）") == (Mention(1, 5, "t"), Mention(6, 12, "h"))
    assert named(watchlist, "ＸＡＴ＆Ｔ") == ()


def test_a_name_on_no_list_is_found_in_any_case_and_within_words_only_where_it_is_no_word_itself():
    assert find_name("halden", "Haldens HALDEN, Halden's", "?") == (Mention(8, 14, "?"), Mention(16, 22, "?"))
    assert find_name("Halden", "the HALDENS fall", "?") == (Mention(4, 10, "?"),)
    assert find_name("海登", "关于海登银行与海登", "?") == (Mention(2, 4, "?"), Mention(7, 9, "?"))
    assert find_name("Norvik", "Haldens fall", "?") == ()
    assert find_name(".*", "Haldens fall", "?") == ()


def test_mentions_of_one_entity_are_found_at_every_place_and_by_its_longest_name():
    watchlist = listed(halden=["Halden Bank", "Halden"], bank=["Bank of Norvik"])
    assert watchlist.find("Halden Bank of Norvik; Halden") == (
        Mention(0, 11, "halden"),
        Mention(7, 21, "bank"),
        Mention(23, 29, "halden"),
    )


def test_aliases_may_be_written_with_typographic_signs():
    assert named(listed(m=["Moody\u2019s"]), "Moody's cuts") == ("m",)
    assert named(listed(m=["Ann\u00a0Co"]), "Ann Co") == ("m",)


def test_a_text_that_repeats_a_name_for_ever_takes_no_longer_per_mention():
    watchlist = listed(ann=["Ann"], bo=["Ann Bo"])
    assert named(watchlist, "Ann Bo Ann " * 50_000) == ("bo", "ann")


def test_ids_come_in_the_order_of_the_file():
    assert list(listed(b=["Bo"], a=["Ann"]).entities) == ["b", "a"]


@pytest.mark.parametrize("aliases", [("Ann", "Ann"), ("ann", "Ann")])
def test_an_entity_may_repeat_itself(aliases):
    assert named(WatchList([Entity("a", "Ann", tuple(Alias(alias, "ignore") for alias in aliases))]), "ANN") == ("a",)


def test_names_that_differ_in_case_may_belong_to_two_if_case_counts():
    watchlist = listed(bank=["Ally"], system=["ALLY"])
    assert named(watchlist, "ALLY and Ally") == ("system", "bank")
    with pytest.raises(ConfigurationError, match="'Ally' already names 'system'"):
        WatchList([Entity("system", "ALLY Inc", (Alias("ALLY", "ignore"),)), Entity("bank", "Ally")])
    with pytest.raises(ConfigurationError, match="'Ally' already names 'system'"):
        WatchList([Entity("system", "ALLY"), Entity("bank", "Ally Inc", (Alias("Ally", "ignore"),))])


FAULTS = {
    "the same id twice": ("entities: [{id: a, name: Ann}, {id: a, name: Bob}]", "entities.1.id"),
    "one alias for two": ("entities: [{id: a, name: Ann}, {id: b, name: Bob, aliases: [Ann]}]", "entities.1"),
    "one alias for two, composed otherwise": (
        'entities: [{id: a, name: Cr\u00e9dit}, {id: b, name: Bob, aliases: [Ann, "Cre\\u0301dit"]}]',
        "entities.1.aliases.1: 'Cre\u0301dit' already names 'a' (entities.0.name)",
    ),
    "a name of one letter": ("entities: [{id: a, name: X}]", "entities.0.name"),
    "a name that YAML takes for something else": ("entities: [{id: a, name: NO}]", "entities.0.name: must be text"),
    "an alias that YAML takes for a number": ("entities: [{id: a, name: Ann, aliases: [360]}]", "aliases.0.text: must be text"),
    "a long alias": (f"entities: [{{id: a, name: {'n' * 201}}}]", "entities.0.name: has more than 200"),
    "an exclusion of one letter": ("entities: [{id: a, name: Ann, exclusions: [A]}]", "entities.0.exclusions.0"),
    "an id of 64 characters": (f"entities: [{{id: {'i' * 64}, name: Ann}}]", "entities.0.id"),
    "an id that begins with a dash": ("entities: [{id: -a, name: Ann}]", "entities.0.id"),
    "no mapping": ("[{id: a, name: Ann}]", "(whole file)"),
    "no list": ("entities: {a: Ann}", "entities: must be a list"),
    "an entity that is a text": ("entities: [Ann]", "entities.0: must be a mapping"),
    "another key": ("{entities: [], watch: []}", "watch: unknown key"),
    "no YAML": ("entities: [", "is not YAML"),
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
    assert named(watchlist, "ANN CO up") == ("a",)
    assert named(watchlist, "Ann Arbor rain") == ()
    assert dict(watchlist.names) == {"a": "Ann Co"}


def test_every_mistake_is_told_at_once(tmp_path):
    path = tmp_path / "watchlist.yaml"
    text = """
    other: 1
    entities:
      - {id: A, name: Ann}
      - {id: b, name: Bo, aliases: [x, ""]}
      - {id: c, name: Cy Co}
      - {id: c, name: Cyril}
      - {id: d, name: Cyril}
    """
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_watchlist(path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "other",
        "entities.0.id",
        "entities.1.aliases.0.text",
        "entities.1.aliases.1.text",
        "entities.3.id",
        "entities.4.name",
    ]
    assert caught.value.origin == str(path)


def test_the_longest_alias_and_the_longest_id_pass(tmp_path):
    path = tmp_path / "watchlist.yaml"
    path.write_text(f"entities: [{{id: {'i' * 63}, name: {'n' * 200}, aliases: [Ab]}}]", encoding="utf-8")
    assert named(load_watchlist(path), "Ab") == ("i" * 63,)


@pytest.mark.parametrize("text", ["", "entities:", "entities: []", "{}"])
def test_an_empty_file_watches_nobody(tmp_path, text):
    path = tmp_path / "watchlist.yaml"
    path.write_text(text, encoding="utf-8")
    assert not load_watchlist(path).entities
