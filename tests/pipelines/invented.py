"""A data folder in the form that training reads, every sentence of it made up here."""

import csv
from pathlib import Path

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


def write_data(folder: Path, sentfin=(), sentfin_dev=(), tfns=(), topic=()) -> Path:
    """The given rows after those above."""
    (folder / "sentiment").mkdir(parents=True)
    (folder / "topic").mkdir()
    for name, rows in (("sentfin_train", [*SENTFIN, *sentfin]), ("sentfin_dev", [*SENTFIN_DEV, *sentfin_dev])):
        lines = ["id\ttext\tentity\tlabel", *(f"{number}\t" + "\t".join(row) for number, row in enumerate(rows))]
        (folder / f"sentiment/{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plain_tfns = [
        (f"bank number {number} {word}", label) for number in range(40) for label, word in enumerate(("falls", "gains", "is"))
    ]
    plain_topic = [(f"{TOPIC_NAMES[number % 3].lower()} story {number} of the bank", number % 3) for number in range(120)]
    for path, rows in (("sentiment/tfns_train.csv", [*plain_tfns, *tfns]), ("topic/tf_topic_train.csv", [*plain_topic, *topic])):
        with (folder / path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "topic/classes.txt").write_text("\n".join(TOPIC_NAMES), encoding="utf-8")
    return folder
