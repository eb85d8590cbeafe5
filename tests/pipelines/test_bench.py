"""The speed of a classifier: the texts it is measured on, and figures that fit together."""

import json

from typer.testing import CliRunner

from pipelines.bench import bench, mentioning, mixed_texts, table_of
from pipelines.cli import app
from tests.fakes import FakeClassifier
from tests.monitor.classifier.tiny import write_base, write_tiny_checkpoint


def test_the_texts_are_the_same_each_time_and_of_mixed_lengths():
    texts = mixed_texts(400)
    words = sorted(len(passage.text.split()) for passage in texts)

    assert texts == mixed_texts(400)
    assert texts != mixed_texts(400, seed=2)
    assert words[200] < 20
    assert words[-20] > 80
    assert 25 < sum(words) / len(words) < 37


def test_texts_name_what_they_are_asked_about():
    for passage in mixed_texts(50):
        for mention in passage.mentions:
            assert passage.text[mention.start : mention.end][0].isupper()
    assert sum(bool(passage.mentions) for passage in mixed_texts(50)) > 35


def test_a_name_that_is_not_there_is_no_mention():
    assert mentioning("Halden falls", {"a": "Brandt"}).mentions == ()


def test_every_text_is_classified_at_every_size_of_batch_in_every_round():
    classifier = FakeClassifier(max_tokens=4_096)
    ticks = []
    speed = bench(classifier, texts=10, batches=(3, 10), rounds=2, tick=lambda: ticks.append(1))
    sizes = [len(batch) for batch in classifier.batches]

    # Alone: two calls to warm up and one per text. Then one batch to warm up, and the rounds.
    assert sizes == [1] * 12 + [10] + [3, 3, 3, 1, 10] * 2
    assert len(ticks) == 4
    assert [pace.batch for pace in speed.paces] == [3, 10]
    assert speed.tokens == sum(len(passage.text) for passage in mixed_texts(10))


def test_the_figures_fit_together():
    speed = bench(FakeClassifier(), texts=20, batches=(20,), rounds=1)
    (pace,) = speed.paces

    assert 0 < speed.latency.p50_ms <= speed.latency.p95_ms <= speed.latency.p99_ms
    assert abs(pace.tokens_per_second / pace.documents_per_second - speed.tokens / speed.texts) < 1
    assert table_of(speed).row_count == 1


def test_the_command_prints_one_json_object(tmp_path):
    base = write_base(tmp_path / "base")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", base)
    options = {"--checkpoint": checkpoint, "--base": base, "--texts": 8, "--batch": 4, "--rounds": 1, "--device": "cpu"}
    command = ["bench", "--json", *(str(part) for option in options.items() for part in option)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    printed = json.loads(done.stdout)

    assert printed["texts"] == 8
    assert (printed["precision"], printed["encoder"]) == ("fp32", "packed")
    assert [pace["batch"] for pace in printed["paces"]] == [4]
