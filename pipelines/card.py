"""A checkpoint's manifest and its evaluation in, a model card out: what it is, what it was made of, what it can and cannot do.

The form is that of model cards (Mitchell et al. 2019, arXiv:1810.03993). The same manifest and evaluation give the same card.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from monitor.classifier.manifest import Manifest
from pipelines.evaluate import Evaluation, Figures

_QUESTIONS = {
    "topic": "what the text is about",
    "sentiment": "how the text as a whole speaks",
    "toward": "how the text speaks of each entity that it names",
}


def render(manifest: Manifest, evaluation: Evaluation) -> str:
    """The card as Markdown."""
    sections = (
        introduction(manifest),
        labels(manifest),
        origin(manifest),
        quality(evaluation),
        robustness(evaluation),
        speed(evaluation),
        limits(manifest, evaluation),
        again(manifest),
    )
    return "\n".join(line for section in sections for line in (*section, "")).rstrip() + "\n"


def introduction(manifest: Manifest) -> Iterator[str]:
    """What it is and what it is for."""
    yield "# Model card"
    yield ""
    yield (
        f"A classifier of financial news: one encoder ({manifest.base.name}) read once a text, with heads for three questions. "
        "It was made to count what many texts say, not to judge one: people decide what follows from it."
    )
    yield ""
    yield from (f"- **{question}**: {meaning}" for question, meaning in _QUESTIONS.items())


def labels(manifest: Manifest) -> Iterator[str]:
    """What it answers with, and how its numbers are to be read."""
    yield "## Labels"
    yield ""
    yield f"Sentiments: {', '.join(manifest.sentiments)}."
    yield f"Topics ({len(manifest.topics)}): {', '.join(map(escaped, manifest.topics))}."
    yield ""
    calibration = manifest.calibration
    yield from table(
        ("question", "temperature", "uncertain below"),
        [
            (name, f"{one.temperature:g}", f"{one.uncertain_below:g}")
            for name, one in (("topic", calibration.topic), ("sentiment", calibration.sentiment), ("toward", calibration.toward))
        ],
    )
    yield ""
    yield (
        "Logits are divided by the temperature before they become probabilities; an answer whose probability lies below the limit "
        f"counts as uncertain. A text is marked as out of domain when the rarer half of its words "
        f"is more surprising than {manifest.out_of_domain_above:g} nats a word after the texts of training."
    )


def origin(manifest: Manifest) -> Iterator[str]:
    """What it was made of: data, licences, hashes, the recipe."""
    yield "## What it was made of"
    yield ""
    yield from table(
        ("data set", "licence", "file", "rows", "SHA-256"),
        [
            (escaped(file.name), escaped(file.licence), f"`{file.file}`", f"{file.rows:,}", f"`{file.sha256[:16]}`")
            for file in manifest.data
        ],
    )
    yield ""
    counts = [
        (escaped(name), escaped(what), f"{number:,}") for name, found in manifest.counts.items() for what, number in found.items()
    ]
    yield from table(("set", "examples", "number"), counts)
    yield ""
    base = manifest.base
    yield f"Base: `{base.name}`, weights `{base.weights_sha256[:16]}`, tokenizer `{base.tokenizer_sha256[:16]}`."
    differs = escaped(", ".join(f"{name} {value}" for name, value in manifest.recipe.items()))
    yield f"Trained on {manifest.created} with seed {manifest.seed}; what differs from the usual recipe: {differs or 'nothing'}."
    yield (
        f"It reads at most {manifest.max_tokens} tokens: of a longer text the headline, the lead and the sentences that name an "
        "entity."
    )
    yield ""
    yield f"Libraries: {', '.join(f'{name} {number}' for name, number in manifest.libraries.items())}."


def quality(evaluation: Evaluation) -> Iterator[str]:
    """What its answers are worth on texts that it never saw."""
    yield "## How good it is"
    yield ""
    yield (
        "On held-out texts: neither they nor any that nearly equal them were trained on. Macro-F1 with the interval that holds it "
        "in 95 % of 1,000 samples of the texts; ECE is the expected calibration error over 15 bins."
    )
    yield ""
    yield from table(
        ("part / question", "macro-F1", "95 % interval", "accuracy", "ECE", "uncertain", "right when certain", "answers"),
        [(name, *_cells(part)) for name, part in evaluation.parts.items()],
    )
    for name, part in evaluation.parts.items():
        yield ""
        yield f"### {name}"
        yield ""
        yield from table(
            ("label", "precision", "recall", "F1", "texts"),
            [
                (escaped(label), score(one.precision), score(one.recall), score(one.f1), f"{one.support:,}")
                for label, one in part.per_label.items()
            ],
        )
    yield ""
    yield "### Slices"
    yield ""
    yield from table(
        ("question", "texts by", "slice", "macro-F1", "accuracy", "ECE", "answers"),
        [
            (
                question,
                kind,
                escaped(name),
                score(one.macro_f1),
                score(one.accuracy),
                score(one.calibration_error),
                f"{one.answers:,}",
            )
            for question, kinds in evaluation.slices.items()
            for kind, parts in kinds.items()
            for name, one in parts.items()
        ],
    )
    if evaluation.conflicts is not None:
        yield ""
        right = percent(evaluation.conflicts.all_right)
        yield f"{evaluation.conflicts.texts:,} texts name entities of opposite fortunes; {right} of them are right about each one."


def _cells(part: Figures) -> tuple[str, ...]:
    return (
        score(part.macro_f1),
        f"{score(part.macro_f1_low)} – {score(part.macro_f1_high)}",
        score(part.accuracy),
        score(part.calibration_error),
        percent(part.uncertain_share),
        percent(part.certain_accuracy),
        f"{part.answers:,}",
    )


def robustness(evaluation: Evaluation) -> Iterator[str]:
    """What upsets it, and whether it knows what it does not know."""
    yield "## What upsets it"
    yield ""
    yield from table(
        ("change that must not matter", "question", "answers that flip", "macro-F1 before", "after"),
        [
            (change, question, percent(one.flip_rate), score(one.macro_f1_before), score(one.macro_f1))
            for change, questions in evaluation.changes.items()
            for question, one in questions.items()
        ],
    )
    yield ""
    yield from table(
        ("language", "sentences", "understood", "of those, their denial understood"),
        [
            (language, str(one.sentences), percent(one.plain_right), percent(one.denied_right))
            for language, one in evaluation.negation.items()
        ],
    )
    foreign = evaluation.out_of_domain
    yield ""
    yield (
        f"Of {foreign.texts} sentences about sport, films, cooking and the weather {percent(foreign.marked_share)} are marked as "
        f"out of domain, of the held-out texts {percent(foreign.held_out_marked_share)}; the {foreign.score} tells them apart with "
        f"an AUROC of {score(foreign.auroc)}."
    )


def speed(evaluation: Evaluation) -> Iterator[str]:
    """Its size, and how fast it is where it was evaluated."""
    yield "## Size and speed"
    yield ""
    if evaluation.weights is not None:
        size = "" if evaluation.bytes is None else f"; the checkpoint itself takes {evaluation.bytes / 1e6:.1f} MB beside the base"
        yield f"{evaluation.weights:,} weights{size}."
        yield ""
    alone, together = evaluation.speed.alone, evaluation.speed.together
    where = f"{evaluation.machine.get('processor', 'the machine')} ({evaluation.device}, {evaluation.precision or 'no weights'})"
    yield (
        f"On {where}, texts of {evaluation.speed.tokens_per_text:g} tokens in the mean: alone {alone.p50_ms:.1f} ms at the median "
        f"and {alone.cpu_ms:.1f} ms of CPU time; {together.batch} at a time {together.documents_per_cpu_second:,.1f} texts a "
        "CPU-second."
    )


def limits(manifest: Manifest, evaluation: Evaluation) -> Iterator[str]:
    """What it must not be used for, and where it is weak by its own figures."""
    yield "## Limits"
    yield ""
    yield "- It says how a text speaks, not whether the text is true, and not what a price will do."
    yield "- Its probabilities are calibrated on texts like those it was trained on; elsewhere they are guesses."
    yield f"- Nothing behind the first {manifest.max_tokens} tokens of what is read of a text is seen."
    weakest = sorted(
        (one.f1, name, label) for name, part in evaluation.parts.items() for label, one in part.per_label.items() if one.support
    )[:3]
    yield f"- Weakest labels: {'; '.join(f'{escaped(label)} ({name}, F1 {score(f1)})' for f1, name, label in weakest)}."
    for language, one in evaluation.negation.items():
        if one.plain_right < 0.5:
            yield f"- It does not read {language.capitalize()}: of plain sentences it understands {percent(one.plain_right)}."
        elif one.denied_right is not None and one.denied_right < 0.9:
            yield f"- It misses a denial in {percent(1 - one.denied_right)} of {language.capitalize()} sentences made for that."


def again(manifest: Manifest) -> Iterator[str]:
    """The commands that give these figures again."""
    settings = "\n".join(f"#   {name}: {value}" for name, value in manifest.recipe.items())
    yield "## Make it again"
    yield ""
    yield "```sh"
    yield f"bellwether-train data --data DATA --output corpus --seed {manifest.seed}"
    if settings:
        yield "# recipe.yaml holds:"
        yield settings
        yield f"bellwether-train finetune --corpus corpus --recipe recipe.yaml --seed {manifest.seed} --output run"
    else:
        yield f"bellwether-train finetune --corpus corpus --seed {manifest.seed} --output run"
    yield "bellwether-train evaluate --checkpoint run/checkpoint --corpus corpus --output run/evaluation"
    yield "bellwether-train card --checkpoint run/checkpoint --evaluation run/evaluation/evaluation.json --output CARD.md"
    yield "```"


# --- Markdown ------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table; the first column of rows that begin alike is written once."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for _, group in groupby(rows, key=lambda row: row[0]):
        for place, row in enumerate(group):
            yield f"| {' | '.join(('' if place else row[0], *row[1:]))} |"


def escaped(text: str) -> str:
    """The text as Markdown shows it: nothing in it is markup, not even within a table."""
    flat = " ".join(str(text).split())
    for character in "\\`*_[]<>|#":
        flat = flat.replace(character, f"\\{character}")
    return flat


def score(number: float) -> str:
    """A figure from 0 to 1 to three digits."""
    return f"{number:.3f}"


def percent(number: float | None) -> str:
    """A share in per cent; a dash where it is undefined."""
    return "–" if number is None else f"{100 * number:.1f} %"
