"""Every method of a recipe: what learns, and that what was learned is what a checkpoint gives back."""

import warnings

import pytest
import torch

from monitor.classifier.checkpoint import load_checkpoint, round_as_stored, write_checkpoint
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared, Target
from monitor.errors import ModelError, PipelineError
from pipelines.learner import (
    build_model,
    learning_weights,
    low_rank,
    orthogonality,
    put_ranks,
    ranks,
    share_out_ranks,
    shippable,
)
from pipelines.recipe import Recipe
from pipelines.training import Labels, masked_loss
from tests.monitor.classifier.tiny import tiny_manifest, tiny_surprisals, write_base, write_sequence_classifier

ROWS = [Prepared((2, 30, 31, 32, 3), (Target("0", (1, 2)),)), Prepared((2, 25, 3)), Prepared((2, 28, 33, 3), (Target("0", (2,)),))]
MERGED = ("full", "lora", "dora", "adalora", "ia3")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


def build(base, method, steps=20, **changes):
    torch.manual_seed(3)
    return build_model(base, 3, Recipe(method=method, rank=4, alpha=8, **changes), steps)


def stirred(model, size=0.1):
    """The model after a training that went anywhere."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * size)
    return model.eval()


def answers(model):
    with torch.inference_mode():
        logits = model(pack(ROWS))
    return torch.cat([logits.topic.flatten(), logits.sentiment.flatten(), logits.toward.flatten()])


@pytest.mark.parametrize("method", [*MERGED, "prefix"])
def test_heads_and_method_learn_and_nothing_else(base, method):
    model = build(base, method)
    untouched = {name: parameter.clone() for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.train()
    logits = model(pack(ROWS))
    (logits.topic.square().sum() + logits.sentiment.square().sum() + logits.toward.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    before = learning_weights(model)
    optimiser.step()
    share_out_ranks(model)
    assert 0 < before < sum(parameter.numel() for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        if name in untouched:
            assert torch.equal(parameter, untouched[name]), name


@pytest.mark.parametrize("method", MERGED)
def test_a_checkpoint_answers_as_the_model_that_was_trained(base, method, tmp_path):
    model = stirred(build(base, method))
    # At full rank nothing is lost; what a lower rank loses is tested below.
    shipped = shippable(model, base, Recipe(method=method, rank=32 if method == "full" else 4)).eval()
    torch.testing.assert_close(answers(shipped), answers(model), atol=2e-5, rtol=1e-4)
    write_checkpoint(tmp_path / "checkpoint", shipped, tiny_surprisals(base), tiny_manifest(base))
    loaded = load_checkpoint(tmp_path / "checkpoint", base).model
    round_as_stored(shipped)
    torch.testing.assert_close(answers(loaded), answers(shipped), atol=2e-5, rtol=1e-4)
    # The untrained model answers otherwise, so the comparison says something.
    assert (answers(build(base, method).eval()) - answers(model)).abs().max() > 0.05


def test_of_full_training_a_higher_rank_keeps_more(base):
    model = stirred(build(base, "full"))
    gaps = [
        float((answers(shippable(model, base, Recipe(method="full", rank=rank)).eval()) - answers(model)).abs().max())
        for rank in (2, 12, 32)
    ]
    assert gaps[0] > gaps[1] > 10 * gaps[2]


def test_a_low_rank_is_the_nearest_there_is():
    torch.manual_seed(1)
    matrix = torch.randn(12, 8)
    values = torch.linalg.svdvals(matrix)
    for rank in (1, 3, 8, 20):
        first, second = low_rank(matrix, rank)
        assert (first.shape, second.shape) == ((rank, 8), (12, rank))
        torch.testing.assert_close((matrix - second @ first).norm(), values[rank:].square().sum().sqrt(), atol=1e-5, rtol=1e-4)


def test_full_training_leaves_embeddings_and_frozen_layers_alone(base):
    model = build(base, "full", frozen_layers=1)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(("encoder.encoder.layer.1.", "topic_head.", "sentiment_head.")) for name in learning)
    assert "encoder.encoder.layer.1.attention.output.LayerNorm.weight" in learning


def test_a_prefix_is_read_and_cannot_be_shipped(base, tmp_path):
    model = stirred(build(base, "prefix"), size=1.0)
    alone = torch.cat([answers_of(model, [row]) for row in ROWS])
    torch.testing.assert_close(alone, answers_of(model, ROWS), atol=1e-5, rtol=1e-4)
    assert (answers(model) - answers(stirred(build(base, "prefix"), size=0.1))).abs().max() > 0.01
    with pytest.raises(ModelError, match="adds tokens to every text"):
        write_checkpoint(tmp_path, model, tiny_surprisals(base), tiny_manifest(base))


def answers_of(model, rows):
    with torch.inference_mode():
        packed = pack(rows)
        topic = model(packed).topic
    return topic[[packed.order.index(place) for place in range(len(rows))]]


def test_adalora_ends_with_the_ranks_of_the_recipe_and_a_checkpoint_keeps_them(base, tmp_path):
    model = build(base, "adalora", steps=20)
    optimiser = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01)
    labels = Labels(torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1]), torch.tensor([0, 2]))
    model.train()
    for _ in range(24):
        (masked_loss(model(pack(ROWS)), labels, Recipe()) + orthogonality(model)).backward()
        optimiser.step()
        share_out_ranks(model)
        optimiser.zero_grad()
    left = [sum(kept) for kept in ranks(model)["left"].values()]
    assert sum(left) == 4 * 12
    assert max(left) > min(left)
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shipped = shippable(model, base, Recipe(method="adalora", rank=4))
        write_checkpoint(tmp_path, shipped, tiny_surprisals(base), tiny_manifest(base))
        loaded = load_checkpoint(tmp_path, base).model
    round_as_stored(model)
    torch.testing.assert_close(answers(loaded), answers(model), atol=2e-5, rtol=1e-4)


def test_what_adalora_knows_can_be_put_back(base):
    model = build(base, "adalora")
    model(pack(ROWS)).topic.square().sum().backward()
    share_out_ranks(model)
    known = ranks(model)
    other = build(base, "adalora")
    assert ranks(other)["matters"]["ipt"] == {}
    put_ranks(other, known)
    assert ranks(other)["steps"] == 1
    assert ranks(other)["matters"]["ipt"].keys() == known["matters"]["ipt"].keys()
    assert ranks(build(base, "lora")) == {}


def test_only_adalora_asks_for_orthogonal_matrices(base):
    assert orthogonality(build(base, "lora")) == 0.0
    model = build(base, "adalora")
    wish = orthogonality(model)
    wish.backward()
    assert float(wish.detach()) > 0


def test_dropout_is_that_of_the_recipe_and_attention_has_none(base):
    model = build(base, "lora", dropout=0.2, layer_dropout=0.3)
    assert model.dropout.p == 0.2
    found = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert found
    for name, share in found.items():
        if "lora_dropout" not in name and name != "dropout":
            assert share == (0.0 if name.endswith("attention.self.dropout") else 0.3), name


def test_a_base_that_a_method_does_not_know_is_refused_with_advice(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_sequence_classifier(tmp_path / "distil", ("negative", "neutral", "positive"), family="distilbert")
    tensors = {name.removeprefix("distilbert."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PipelineError, match="take an adapter"):
        build(folder, "full")
    with pytest.raises(PipelineError, match="take lora"):
        build(folder, "ia3")
    assert learning_weights(build(folder, "lora")) > 0


def test_more_frozen_layers_than_there_are_is_an_error(base):
    with pytest.raises(PipelineError, match="frozen_layers is 3, the base has 2 layers"):
        build(base, "full", frozen_layers=3)
