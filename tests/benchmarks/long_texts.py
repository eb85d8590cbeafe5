"""What reading a long text by its parts is worth: macro-F1 of the sentiment toward an entity that is named late in it, as JSON.

`python -m tests.benchmarks.long_texts --data FOLDER [--checkpoint FOLDER] [--rows N] [--sentences N] [--seed N]`

Each labelled headline of the folder's sentiment/sentfin_dev.tsv (id, text, entity, label) is hidden in the second half of a body
that is made of other headlines, none of which names its entity. The classifier answers for the headline alone, for as much of the
long text as it can read from the beginning, and for the long text as the daemon would read it.
"""

import argparse
import csv
import json
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sklearn.metrics import f1_score

from monitor.classifier.load import load_classifier
from monitor.classifier.protocol import Classifier
from monitor.classifier.text import join, normalise
from monitor.config import ModelSettings
from monitor.types import SENTIMENTS, Passage
from monitor.watchlist import find_name

ENTITY = "asked"


@dataclass(frozen=True, slots=True)
class Case:
    """A labelled headline, alone and hidden."""

    label: str
    alone: Passage
    hidden: Passage


def cases(path: Path, rows: int | None, sentences: int, seed: int) -> list[Case]:
    """The headlines of the file whose entity stands in them, or so many drawn from them."""
    with path.open(encoding="utf-8", newline="") as file:
        labelled = [
            (normalise(row["text"]), normalise(row["entity"]), row["label"])
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    headlines = sorted({text for text, _, _ in labelled})
    chance = random.Random(seed)
    chosen = labelled if rows is None else chance.sample(labelled, rows)
    return [case(row, headlines, sentences, chance) for row in chosen if named(*row[:2]).mentions]


def case(row: tuple[str, str, str], headlines: Sequence[str], sentences: int, chance: random.Random) -> Case:
    """The headline in the second half of a body of so many sentences, under the headline of something else."""
    text, entity, label = row
    others: list[str] = []
    while len(others) < sentences:
        other = chance.choice(headlines)
        if other != text and entity.casefold() not in other.casefold():
            others.append(other)
    title, *body = others
    body.insert(chance.randrange(sentences // 2, sentences), text)
    return Case(label, named(text, entity), named(join(title, " ".join(f"{sentence}." for sentence in body)), entity))


def named(text: str, entity: str) -> Passage:
    """The passage with the places that name the entity."""
    return Passage(text, find_name(entity, text, ENTITY))


def cut(passage: Passage, classifier: Classifier) -> Passage:
    """As much from the beginning of a passage as the classifier reads without leaving anything out."""
    ends = [place for place, character in enumerate(passage.text) if character.isspace()] + [len(passage.text)]
    low, high = 0, len(ends)
    while low + 1 < high:
        middle = (low + high) // 2
        (prepared,) = classifier.prepare([Passage(passage.text[: ends[middle]])])
        low, high = (low, middle) if prepared.truncated else (middle, high)
    return Passage(passage.text[: ends[low]], tuple(mention for mention in passage.mentions if mention.end <= ends[low]))


def measure(found: Sequence[Case], passages: Sequence[Passage], classifier: Classifier) -> dict[str, float]:
    """Macro-F1 toward the entity, the share of texts in which its name was read, and what reading and answering took."""
    began_s = time.perf_counter()
    prepared = classifier.prepare(passages)
    read_s = time.perf_counter()
    predictions = classifier.classify(prepared)
    answered_s = time.perf_counter()
    answers = [prediction.opinion(ENTITY).sentiment for prediction in predictions]
    return {
        "macro_f1": round(float(f1_score([one.label for one in found], answers, labels=SENTIMENTS, average="macro")), 4),
        "name_read": round(sum(ENTITY in prediction.toward for prediction in predictions) / len(predictions), 4),
        "mean_tokens": round(sum(one.tokens for one in prepared) / len(prepared), 1),
        "prepare_microseconds_a_text": round((read_s - began_s) / len(prepared) * 1e6, 1),
        "classify_milliseconds_a_text": round((answered_s - read_s) / len(prepared) * 1e3, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="default: the one that is shipped")
    parser.add_argument("--rows", type=int, help="default: all")
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = cases(options.data / "sentiment" / "sentfin_dev.tsv", options.rows, options.sentences, options.seed)
    classifier = load_classifier(ModelSettings(checkpoint=options.checkpoint))
    alone, hidden = [one.alone for one in found], [one.hidden for one in found]
    figures = {
        "headline_alone": measure(found, alone, classifier),
        "cut_at_the_limit": measure(found, [cut(passage, classifier) for passage in hidden], classifier),
        "excerpt": measure(found, hidden, classifier),
    }
    told = {
        "machine": platform.processor() or platform.machine(),
        "model": classifier.version,
        "device": classifier.device,
        "texts": len(found),
        "mean_characters": round(sum(len(passage.text) for passage in hidden) / len(found)),
        "seed": options.seed,
        **figures,
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
