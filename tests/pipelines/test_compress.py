"""Pruning: what can be left out at no cost is left out at no cost, and what costs too much is not offered."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from monitor.classifier.checkpoint import load_checkpoint, write_checkpoint
from monitor.classifier.load import load_classifier
from monitor.classifier.model import load_encoder
from monitor.classifier.packed_encoder import encode
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared
from monitor.config import ModelSettings
from monitor.errors import PipelineError
from pipelines.cli import app
from pipelines.compress import compress, fit, lost, products_of, prune
from pipelines.corpus import Corpus, Example, Toward, save_corpus
from pipelines.evaluate import SliceFigures, ask
from tests.monitor.classifier.tiny import TOPICS, tiny_manifest, tiny_model, tiny_surprisals, write_base, write_tiny_checkpoint

TEXTS = [f"{first} {second} {third}" for first in ("halden", "bank", "queue") for second in ("rises", "falls")
         for third in ("of savings", "to a gain", "in 12 b")]  # fmt: skip
EXAMPLES = tuple(
    Example(text, "news", TOPICS[place % 3], ("negative", "neutral", "positive")[place % 3], (Toward(0, 4, "negative"),))
    for place, text in enumerate(TEXTS)
)
CORPUS = Corpus(EXAMPLES, {"news": EXAMPLES}, TOPICS, (), 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base", hidden=64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, base):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", base)


@pytest.fixture(scope="module")
def rows():
    drawn = torch.Generator().manual_seed(0)
    return [Prepared(tuple(torch.randint(30, (12,), generator=drawn).tolist())) for _ in range(60)]


def columns(count, samples=400, seed=0):
    """Random columns with a column of ones behind."""
    drawn = torch.Generator().manual_seed(seed)
    found = torch.randn((samples, count), generator=drawn, dtype=torch.float64)
    return torch.cat([found, torch.ones((samples, 1), dtype=torch.float64)], dim=1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 10))
def test_a_column_that_others_can_stand_in_for_costs_nothing(seed, kept):
    """Twelve columns of which only `kept` say something of their own."""
    own = columns(kept, seed=seed)[:, :-1]
    mixture = torch.randn((kept, 12 - kept), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    every = torch.cat([own, own @ mixture, torch.ones((len(own), 1), dtype=torch.float64)], dim=1)
    weights = torch.randn((5, 13), generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    stay, fitted = fit(every.T @ every, weights, kept)

    said, says = every @ weights.T, every[:, [*stay.tolist(), 12]] @ fitted.T
    assert stay.tolist() == sorted(set(stay.tolist()))
    assert len(stay) == kept
    assert float((said - says).square().mean() / said.square().mean()) < 1e-4


def test_what_is_fitted_is_the_best_there_is():
    every, weights = columns(8), torch.randn((3, 9), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    stay, fitted = fit(every.T @ every, weights, 5)
    chosen = every[:, [*stay.tolist(), 8]]
    best = torch.linalg.lstsq(chosen, every @ weights.T).solution.T

    assert torch.allclose(fitted, best, atol=1e-3)


def test_the_columns_that_matter_stay():
    weights = torch.zeros((2, 9), dtype=torch.float64)
    weights[:, [1, 4, 6]] = 1.0
    every = columns(8)

    assert fit(every.T @ every, weights, 3)[0].tolist() == [1, 4, 6]


def test_the_products_are_those_of_what_the_layer_is_given(base, rows):
    encoder = load_encoder(base).eval()
    given_ = []
    hook = encoder.encoder.layer[0].output.dense.register_forward_pre_hook(lambda _, inputs: given_.append(inputs[0]))
    with torch.inference_mode():
        encode(encoder, pack(rows))
    hook.remove()
    states = torch.cat([given_[0], torch.ones((len(given_[0]), 1))], dim=1).double()

    assert torch.allclose(products_of(encoder, rows)[0], states.T @ states, rtol=1e-4, atol=1e-3)
    assert not encoder.encoder.layer[0].output.dense._forward_pre_hooks


def test_columns_that_say_nothing_are_taken_out_and_no_answer_changes(base, rows):
    encoder = load_encoder(base).eval()
    with torch.no_grad():
        for layer in encoder.encoder.layer:
            layer.output.dense.weight[:, ::2] = 0.0
    pruned = prune(encoder, rows, keep=0.5)

    assert pruned.config.intermediate_size == encoder.config.intermediate_size // 2 == 64
    assert pruned.encoder.layer[0].intermediate.dense.weight.shape == (64, 64)
    with torch.inference_mode():
        assert torch.allclose(encode(pruned, pack(rows)), encode(encoder, pack(rows)), atol=2e-3)


def test_an_encoder_that_cannot_be_taken_apart_is_refused(rows):
    with pytest.raises(PipelineError, match="only encoders built as BERT"):
        prune(torch.nn.Linear(2, 2), rows, 0.5)


def test_a_share_that_takes_nothing_out_is_refused(base, rows):
    with pytest.raises(PipelineError, match="nothing would be taken out"):
        prune(load_encoder(base), rows, 0.95)


def test_a_pruned_checkpoint_is_loaded_by_the_daemon_and_answers_as_measured(checkpoint, base, tmp_path):
    done = compress(CORPUS, checkpoint, base, tmp_path, keep=0.75, texts=16, max_loss=1.0, seed=1)
    classifier = load_classifier(ModelSettings(checkpoint=tmp_path / "checkpoint", base=tmp_path / "base", device="cpu"))
    written = json.loads((tmp_path / "compression.json").read_text())

    assert done.columns == (128, 96)
    assert done.weights[1] < done.weights[0]
    assert done.missed == ()
    assert classifier.topics == TOPICS
    assert written["after"]["news/toward"]["macro_f1"] == done.after["news/toward"].macro_f1
    manifest = load_checkpoint(tmp_path / "checkpoint", tmp_path / "base").manifest
    assert manifest.base.name.endswith("-96")
    assert manifest.recipe["pruned_from"] == load_checkpoint(checkpoint, base).version


def test_the_order_of_sentiments_that_a_checkpoint_was_trained_in_survives(checkpoint, base, tmp_path):
    from tests.monitor.classifier.tiny import copy_of, edit_manifest

    turned = copy_of(checkpoint, tmp_path / "turned")
    edit_manifest(turned, lambda content: content.update(sentiments=["positive", "negative", "neutral"]))
    compress(CORPUS, turned, base, tmp_path / "out", keep=0.75, texts=16, max_loss=1.0, seed=1)
    old = load_checkpoint(turned, base).model.sentiment_head.weight
    new = load_checkpoint(tmp_path / "out" / "checkpoint", tmp_path / "out" / "base").model.sentiment_head.weight

    assert torch.equal(old, new)


def test_what_costs_too_much_is_told_and_not_written(base, tmp_path):
    """The labels are what the model says itself, so that whatever pruning changes is lost."""
    checkpoint = tmp_path / "undecided"
    write_checkpoint(checkpoint, tiny_model(base, seed=6), tiny_surprisals(base), tiny_manifest(base))
    said = ask(load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu")), EXAMPLES)
    own = tuple(
        replace(
            read.example,
            topic=read.prediction.topic,
            sentiment=read.prediction.document.sentiment,
            toward=(Toward(0, 4, read.prediction.toward["0"].sentiment),),
        )
        for read in said
    )
    folder = tmp_path / "corpus"
    save_corpus(replace(CORPUS, validation={"news": own}), folder)
    options = {"--corpus": folder, "--checkpoint": checkpoint, "--base": base, "--output": tmp_path / "out", "--keep": 0.1}
    command = ["compress", "--max-loss", "0", "--texts", "8", *(str(part) for option in options.items() for part in option)]
    with pytest.raises(PipelineError, match="not offered"):
        CliRunner().invoke(app, command, catch_exceptions=False)

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["compression.json"]
    assert json.loads((tmp_path / "out" / "compression.json").read_text())["missed"]


def test_a_loss_of_just_as_much_as_allowed_is_none():
    before = {"news/topic": SliceFigures(10, 0.9, 0.9, 0.0)}
    after = {"news/topic": SliceFigures(10, 0.895, 0.9, 0.0)}

    assert lost(before, after, 0.005) == []
    assert lost(before, after, 0.0049) == ["news/topic: macro-F1 fell by 0.0050, from 0.9000 to 0.8950; 0.0049 is allowed"]


def test_a_corpus_without_texts_is_refused(checkpoint, base, tmp_path):
    for empty in (replace(CORPUS, train=()), replace(CORPUS, validation={"news": ()})):
        with pytest.raises(PipelineError, match="texts to train on and held-out ones"):
            compress(empty, checkpoint, base, tmp_path, keep=0.5, texts=8, max_loss=1.0, seed=1)
