"""A text in, the classifier's answers and the words that carried them out: for a program as JSON, for a person in colour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from monitor.classifier.excerpt import Span, parts, uncovered
from monitor.classifier.protocol import Classifier
from monitor.classifier.text import CJK, join, normalise
from monitor.decode import clean_line, clean_text
from monitor.score import MAX_ENTITY_CHARACTERS, by_label, opinion_fields
from monitor.severe_events import Category, Finding, shipped_events
from monitor.types import SENTIMENTS, Mention, Opinion, Passage, Prediction
from monitor.watchlist import WatchList, find_name

MAX_WORDS: Final = 256
"""So many words of a text are weighed, those of its most telling parts."""

_READ_CHARACTERS: Final = 2_048
_DIGITS: Final = 6
_WORD: Final = re.compile(rf"[{CJK}]|[$€£#@]?[^\W_{CJK}]+(?:[.,'’&/-][^\W_{CJK}]+)*%?|[^\w\s]+|_+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text, or a whole name, and what it weighs.

    `topic` is P(topic) with the word less P(topic) without it, for the topic of the whole text: above 0 the word speaks for the
    topic. `sentiment` is the score (P(positive) - P(negative)) of the text with the word less that without it: above 0 the word
    brightens the text, below 0 it darkens it. `toward` is the same for each entity; the entity's own name has no weight there,
    because without it nobody is asked about.
    """

    span: Span
    text: str
    topic: float
    sentiment: float
    toward: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answers about a text and the weights of its words, in the order of the text.

    `names` are the entities that were looked for and how they are called; of those, `prediction.toward` knows the ones that the
    classifier found in what it read. `truncated` says that it could not read all of the text. `findings` are the patterns of severe
    events that match, those that tell of one first; `unmatched` are the categories of which only single words stand beside a name.
    `categories` are all of them by their ids.
    """

    passage: Passage
    prediction: Prediction
    topics: tuple[str, ...]
    words: tuple[Word, ...]
    names: Mapping[str, str]
    truncated: bool
    findings: tuple[Finding, ...]
    unmatched: tuple[str, ...]
    categories: Mapping[str, Category]


def explain(text: str, names: Sequence[str], watchlist: WatchList, classifier: Classifier) -> Explanation:
    """What the classifier says of a text and of whom it names, and which words it said so for.

    The first line of `text` is the headline. Beside who is watched, `names` are asked about (`find_name`). A word weighs what
    leaving it out changes: the text is asked about once as it is and once without each word, in one go, through `prepare` and
    `classify` alone, so that any classifier can be explained (occlusion: Li, Monroe, Jurafsky, arXiv:1612.08220). A name is left
    out as a whole, Chinese character by character. Two words that say the same can each be left out without much change: then both
    weigh little. Of a text that is too long the classifier reads something else instead of a word that is missing.

    Raises Undecodable when `text` or a name holds control characters, and what the classifier raises.
    """
    headline, _, body = clean_text("the text", text).partition("\n")
    asked = [normalise(clean_line("the entity", name, MAX_ENTITY_CHARACTERS)) for name in names]
    known = {name: entity for entity, name in watchlist.names.items()}
    entities = [known.get(name, name) for name in asked if name]
    whole = _passage(join(headline, body), [name for name in entities if name not in watchlist.entities], watchlist)
    spans = _words(whole)
    prepared = classifier.prepare([whole, *(_without(whole, span) for span in spans)])
    prediction, *others = classifier.classify(prepared)
    events = shipped_events()
    findings = events.judge(events.find(whole), prediction)
    return Explanation(
        passage=whole,
        prediction=prediction,
        topics=tuple(classifier.topics),
        words=tuple(
            _weigh(whole, span, prediction, other, list(classifier.topics).index(prediction.topic))
            for span, other in zip(spans, others, strict=True)
        ),
        names={entity: watchlist.names.get(entity, entity) for entity in dict.fromkeys((*whole.entities, *entities))},
        truncated=prepared[0].truncated,
        findings=tuple(sorted(findings, key=lambda found: found.rejected_by is not None)),
        unmatched=tuple(sorted(events.triggered(whole) - {found.category for found in findings})),
        categories=events.categories,
    )


def as_json(explanation: Explanation) -> dict[str, Any]:
    """The explanation as a JSON object. An entity's "sentiment_of" is "document" where the text does not name it."""
    prediction = explanation.prediction
    return {
        "text": explanation.passage.text,
        "truncated": explanation.truncated,
        "topic": prediction.topic,
        "topic_probabilities": by_label(explanation.topics, prediction.topic_probabilities),
        "topic_uncertain": prediction.topic_uncertain,
        "unfamiliarity": prediction.unfamiliarity,
        "out_of_domain": prediction.out_of_domain,
        **opinion_fields(prediction.document),
        "entities": {
            entity: {
                "name": name,
                "sentiment_of": "entity" if entity in prediction.toward else "document",
                **opinion_fields(prediction.opinion(entity)),
            }
            for entity, name in explanation.names.items()
        },
        "words": [
            {
                "start": word.span.start,
                "end": word.span.end,
                "text": word.text,
                "topic": round(word.topic, _DIGITS),
                "sentiment": round(word.sentiment, _DIGITS),
                "toward": {entity: round(weight, _DIGITS) for entity, weight in word.toward.items()},
            }
            for word in explanation.words
        ],
        "events": [
            {
                "entity": found.entity,
                "category": found.category,
                "severity": found.severity,
                "said": found.said,
                "pattern": found.pattern,
                "rejected_by": found.rejected_by,
            }
            for found in explanation.findings
        ],
        "events_unmatched": list(explanation.unmatched),
    }


# --- weighing ------------------------------------------------------------------------------------


def _passage(text: str, asked: Iterable[str], watchlist: WatchList) -> Passage:
    mentions = set(watchlist.find(text))
    for name in asked:
        mentions.update(find_name(name, text, name))
    return Passage(text, tuple(sorted(mentions)))


def _words(passage: Passage) -> list[Span]:
    """The names and the words of the most telling parts of a passage, at most `MAX_WORDS`, in the order of the text."""
    named = _names(passage.mentions)
    found: list[Span] = []
    for part in parts(passage, _READ_CHARACTERS):
        names = [name for name in named if name.start < part.end and name.end > part.start]
        found += (name for name in names if name not in found)
        for gap in uncovered(part, names):
            found += (Span(*word.span()) for word in _WORD.finditer(passage.text, gap.start, gap.end))
        if len(found) >= MAX_WORDS:
            break
    return sorted(found[:MAX_WORDS])


def _names(mentions: Iterable[Mention]) -> list[Span]:
    """The characters that belong to mentions; mentions that overlap make one span."""
    spans: list[Span] = []
    for mention in mentions:
        if spans and mention.start < spans[-1].end:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, mention.end))
        else:
            spans.append(Span(mention.start, mention.end))
    return spans


def _without(passage: Passage, span: Span) -> Passage:
    """The passage without some of its characters, and without one of the two spaces that then meet."""
    start, end = span.start, span.end
    if passage.text[end : end + 1] == " " and (start == 0 or passage.text[start - 1].isspace()):
        end += 1
    elif start > 0 and passage.text[start - 1] == " " and passage.text[end : end + 1] in {"", "\n"}:
        start -= 1
    mentions = (
        mention if mention.end <= start else Mention(mention.start - (end - start), mention.end - (end - start), mention.entity)
        for mention in passage.mentions
        if mention.end <= start or mention.start >= end
    )
    return Passage(passage.text[:start] + passage.text[end:], tuple(mentions))


def _weigh(passage: Passage, span: Span, whole: Prediction, without: Prediction, topic: int) -> Word:
    own = {mention.entity for mention in passage.mentions if mention.start < span.end and mention.end > span.start}
    return Word(
        span=span,
        text=passage.text[span.start : span.end],
        topic=whole.topic_probabilities[topic] - without.topic_probabilities[topic],
        sentiment=whole.document.score - without.document.score,
        toward={
            entity: opinion.score - without.toward[entity].score
            for entity, opinion in whole.toward.items()
            if entity not in own and entity in without.toward
        },
    )


# --- the terminal --------------------------------------------------------------------------------

_BAR: Final = 24
_TOPICS: Final = 5
_STRONGEST: Final = 6
_LEAST_SHOWN: Final = 0.005
_STYLES: Final = {"negative": "red", "neutral": "bright_black", "positive": "green"}


def rendered(explanation: Explanation) -> RenderableType:
    """The explanation for a terminal; nothing of a text or a name is read as markup."""
    prediction = explanation.prediction
    by_topic = sorted(zip(explanation.topics, prediction.topic_probabilities, strict=True), key=lambda pair: -pair[1])
    sections: list[RenderableType] = [
        _heading("Topic", prediction.topic, uncertain=prediction.topic_uncertain),
        _bars([(topic, probability, "cyan") for topic, probability in by_topic[:_TOPICS]]),
        *_weights(explanation, [word.topic for word in explanation.words], "speaks for it", "against it"),
        *_opinion("Sentiment", prediction.document),
        *_weights(explanation, [word.sentiment for word in explanation.words], "brightens", "darkens"),
    ]
    for entity, name in explanation.names.items():
        if entity in prediction.toward:
            sections += _opinion(f"Toward {name}", prediction.toward[entity])
            sections += _weights(explanation, [word.toward.get(entity, 0.0) for word in explanation.words], "brightens", "darkens")
        else:
            sections.append(Text(f"\nToward {name}: not named in what was read; counted with the sentiment of the text", "bold"))
    return Group(*sections, *_events(explanation), *_remarks(explanation))


def _heading(question: str, answer: str, *, uncertain: bool) -> Text:
    text = Text(f"\n{question}: ", style="bold")
    text.append(answer, style=_STYLES.get(answer, "cyan"))
    if uncertain:
        text.append(" (uncertain)", style="yellow")
    return text


def _opinion(question: str, opinion: Opinion) -> Iterator[RenderableType]:
    yield _heading(question, opinion.sentiment, uncertain=opinion.uncertain)
    yield _bars(
        [(label, probability, _STYLES[label]) for label, probability in zip(SENTIMENTS, opinion.probabilities, strict=True)]
    )


def _bars(rows: Iterable[tuple[str, float, str]]) -> Table:
    table = Table.grid(padding=(0, 1))
    for label, probability, style in rows:
        bar = ProgressBar(total=1, completed=probability, width=_BAR, complete_style=style, finished_style=style)
        table.add_row(Text(f"  {label}"), bar, Text(f"{probability:.3f}"))
    return table


def _weights(explanation: Explanation, weights: Sequence[float], raises: str, lowers: str) -> Iterator[RenderableType]:
    """The text in the colours of its words, and the words that weigh most."""
    text = Text()
    largest = max(map(abs, weights), default=0.0)
    end = 0
    for word, weight in zip(explanation.words, weights, strict=True):
        gap = explanation.passage.text[end : word.span.start]
        text.append(gap if len(gap) < _BAR else " … ", style="dim")
        text.append(word.text, style=_shade(weight, largest))
        end = word.span.end
    yield Padding(text, (0, 2))
    weighed = sorted(zip(explanation.words, weights, strict=True), key=lambda pair: -abs(pair[1]))[:_STRONGEST]
    for verb, sign in ((raises, 1), (lowers, -1)):
        told = [f"{word.text} {weight:+.3f}" for word, weight in weighed if weight * sign >= _LEAST_SHOWN]
        if told:
            yield Text(f"  {verb}: {', '.join(told)}", style="green" if sign > 0 else "red")


def _shade(weight: float, largest: float) -> str:
    if abs(weight) < _LEAST_SHOWN:
        return ""
    colour = "green" if weight > 0 else "red"
    return f"bold {colour} reverse" if abs(weight) > largest / 2 else colour


def _events(explanation: Explanation) -> Iterator[Text]:
    """The severe events that are told, and what looked like one and why it is none."""
    if explanation.names:
        yield Text("\nSevere events" + ("" if explanation.findings else ": none"), style="bold")
    for found in explanation.findings:
        category = explanation.categories[found.category]
        told = Text(f"  {category.title} ({found.severity}): ", "bright_black" if found.rejected_by else "bold red")
        told.append(explanation.names[found.entity], style="bold")
        told.append(f', as "{found.said}"')
        if found.rejected_by:
            told.append(f"; no event: {found.rejected_by}", style="yellow")
        yield told
        yield Text(f"    by {found.pattern}", style="dim")
    for unmatched in explanation.unmatched:
        yield Text(f"  {explanation.categories[unmatched].title}: words of it, but no pattern matches with a name", "bright_black")


def _remarks(explanation: Explanation) -> Iterator[Text]:
    if explanation.prediction.out_of_domain:
        yield Text("\nOut of domain: the text is unlike any that the model was trained on.", style="yellow")
    if explanation.truncated:
        yield Text(
            "\nThe text is longer than the model reads: headline, lead and the sentences with names were read.", style="yellow"
        )
    if len(explanation.words) == MAX_WORDS:
        yield Text(f"\nOnly {MAX_WORDS} words were weighed.", style="yellow")
