"""Labelled texts for training, all made up here: a data folder as people keep one, and a corpus for tiny models."""

import csv
import random
from pathlib import Path

from pipelines.corpus import Corpus, Example, Toward

TOPIC_NAMES = ("Credit", "Earnings", "Weather | Sea")

SENTFIN = [
    ("Halden loss falls on Castor", "Halden", "negative"),
    ("Halden profit rises", "Halden", "positive"),
    ("Castor meets in Ardenne", "Castor", "neutral"),
    ("Orlen gains while Castor falls", "Orlen", "positive"),
    ("Orlen gains while Castor falls", "Castor", "negative"),
    ("Kestrel and Marrow rally", "Kestrel", "positive"),
    ("Kestrel and Marrow rally", "Marrow", "positive"),
]
SENTFIN_DEV = [
    ("Northmere rises again", "Northmere", "positive"),
    ("Lowen up as Tessaly drops", "Lowen", "positive"),
    ("Lowen up as Tessaly drops", "Tessaly", "negative"),
]
PLACES = ("Ardenne", "Marrow", "Oslund", "Tarn", "Velm", "Wick", "Yarrow", "Zell")


def write_data(folder: Path, sentfin=(), sentfin_dev=(), tfns=(), topic=()) -> Path:
    """A folder that pipelines/sets/shipped.yaml describes, with the given rows after those above."""
    (folder / "sentiment").mkdir(parents=True)
    (folder / "topic").mkdir()
    for name, rows in (("sentfin_train", [*SENTFIN, *sentfin]), ("sentfin_dev", [*SENTFIN_DEV, *sentfin_dev])):
        lines = ["id\ttext\tentity\tlabel", *(f"{number}\t" + "\t".join(row) for number, row in enumerate(rows))]
        (folder / f"sentiment/{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # Texts of few words in common, so that none is nearly another.
    plain_tfns = [
        (f"{PLACES[number % 8]} bank {number} {word} {number * 7}", label)
        for number in range(40)
        for label, word in enumerate(("falls", "gains", "is"))
    ]
    plain_topic = [
        (f"{TOPIC_NAMES[number % 3].lower()} {PLACES[number % 8]} {number} story {number * 3}", number % 3) for number in range(120)
    ]
    for path, rows in (("sentiment/tfns_train.csv", [*plain_tfns, *tfns]), ("topic/tf_topic_train.csv", [*plain_topic, *topic])):
        with (folder / path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "topic/classes.txt").write_text("\n".join(TOPIC_NAMES), encoding="utf-8")
    return folder


def examples(number: int, seed: int) -> list[Example]:
    """Texts in the words of the tiny base: topics, sentiments as a whole, and two names that fare differently."""
    source = random.Random(seed)
    found = []
    for place in range(number):
        noise = " ".join(source.choices(("the", "of", "in", "a", "b", "to"), k=source.randint(1, 5)))
        match place % 3:
            case 0:
                topic = source.randrange(3)
                found.append(
                    Example(f"{('savings', 'queue', 'rumour')[topic]} {noise} {place}", "topics", topic=TOPIC_NAMES[topic])
                )
            case 1:
                good = source.random() < 0.5
                text = f"bank {'profit rises' if good else 'loss falls'} {noise} {place}"
                found.append(Example(text, "tones", sentiment="positive" if good else "negative"))
            case _:
                first = source.random() < 0.5
                text = f"halden {'gain' if first else 'loss'} {noise} bank {'loss' if first else 'gain'} {place}"
                start = text.index("bank")
                good, bad = ("positive", "negative") if first else ("negative", "positive")
                found.append(Example(text, "names", toward=(Toward(0, 6, good), Toward(start, start + 4, bad))))
    return found


def invented_corpus(train: int = 48, held: int = 24) -> Corpus:
    """A small corpus that a tiny model can learn something of."""
    held_out = examples(held, seed=2)
    return Corpus(
        train=tuple(examples(train, seed=1)),
        validation={part: tuple(one for one in held_out if one.part == part) for part in ("names", "tones", "topics")},
        topics=TOPIC_NAMES,
        files=(),
        seed=1,
    )
