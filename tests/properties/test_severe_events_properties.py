"""Whatever a text holds, severe events are told of names in it, in order, the same each time, and not of who only stands beside."""

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.severe_events import shipped_events
from monitor.types import Opinion, Passage, Prediction
from monitor.watchlist import Entity, WatchList

EVENTS = shipped_events()
NAMES = ("Halden", "Norvik", "Merrow", "海登银行")
WATCHED = WatchList([Entity(f"e{place}", name) for place, name in enumerate(NAMES)])
PREDICTION = Prediction("Financials", (1.0,), False, Opinion("negative", (0.8, 0.1, 0.1)))
EXAMPLES = [example for ways in EVENTS.ways.values() for way in ways for example in (*way.matches, *way.rejects)]

PHRASES = """files for;bankruptcy;is;seized by;regulators;denies;fraud;after;collapse of;, a lender,;'s;halts;withdrawals;Inc
    (HLD.N);$1.2 bln;-;.;“;’;UPDATE 2-;破产;被;否认;。;\ue000"""
words = st.sampled_from([*NAMES, *PHRASES.split(";"), "\n", ";"])
texts = st.one_of(
    st.lists(words, max_size=30).map(" ".join),
    st.lists(words, max_size=30).map("".join),
    st.lists(st.sampled_from([example.passage.text for example in EXAMPLES]), max_size=4).map(". ".join),
    st.text(max_size=80),
)


def told(text):
    return EVENTS.tell(Passage(text, WATCHED.find(text)), PREDICTION)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_events_are_told_of_names_in_the_text_once_and_in_order(text):
    events = told(text)
    assert list(events) == sorted(set(events))
    assert len({(event.entity, event.category) for event in events}) == len(events)
    assert {event.entity for event in events} <= {mention.entity for mention in WATCHED.find(text)}
    assert all(event.category in EVENTS.categories for event in events)
    assert told(text) == events


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([example for example in EXAMPLES if len(example.named) == 1]), st.sampled_from(NAMES[:3]))
def test_an_event_does_not_depend_on_who_is_named(example, name):
    named = example.named[0]
    if named.isascii():
        other = Passage(example.text.replace(f"[{named}]", name).replace(f"{{{named}}}", name))
        passage = Passage(other.text, WATCHED.find(other.text))
        own = {(found.category, found.rejected_by is None) for found in EVENTS.find(example.passage)}
        assert {(found.category, found.rejected_by is None) for found in EVENTS.find(passage)} == own


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([example for example in EXAMPLES if example.about]), st.sampled_from(["\n", " "]))
def test_a_sentence_about_somebody_else_changes_nothing(example, between):
    quiet = Passage(f"Norvik opens a branch in town.{between}", ())
    shift = len(quiet.text)
    mentions = tuple(
        type(mention)(mention.start + shift, mention.end + shift, mention.entity) for mention in example.passage.mentions
    )
    behind = Passage(quiet.text + example.passage.text, (*WATCHED.find("Norvik opens"), *mentions))
    alone = {(event.entity, event.category) for event in EVENTS.tell(example.passage, PREDICTION)}
    found = {(event.entity, event.category) for event in EVENTS.tell(behind, PREDICTION)}
    assert {one for one in found if one[0] != "e1"} == alone
    assert not {one for one in found if one[0] == "e1"}
