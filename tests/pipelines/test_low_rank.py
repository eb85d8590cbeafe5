"""Fused low-rank layers: the answers and the gradients of peft's own."""

import copy

import pytest
import torch
from peft import LoraConfig

from monitor.classifier.model import TwoHeadModel, attach, linear_layers, load_encoder
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared, Target
from pipelines.learner import build_model
from pipelines.low_rank import LowRankLinear, fuse
from pipelines.recipe import Recipe
from tests.monitor.classifier.tiny import write_base

ROWS = [Prepared((2, 23, 9, 11, 3), (Target("a", (1,)),)), Prepared((2, 24, 25, 3)), Prepared((2, 26, 3), (Target("b", (1,)),))]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


def adapted(base, **options):
    encoder = load_encoder(base)
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=linear_layers(encoder), task_type="FEATURE_EXTRACTION", **options)
    model = TwoHeadModel(attach(encoder, config), 3, dropout=0.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def outcome(model):
    """The logits of a batch and the gradients of all that learns."""
    model.zero_grad()
    logits = model(pack(ROWS))
    (logits.topic.square().sum() + logits.sentiment.square().sum() + logits.toward.sum()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return torch.cat([logits.topic.flatten(), logits.sentiment.flatten(), logits.toward.flatten()]), gradients


def test_the_gradients_are_those_of_finite_differences():
    torch.manual_seed(1)
    x, weight, bias, down, up = (torch.randn(shape, dtype=torch.float64) for shape in ((4, 5), (6, 5), (6,), (2, 5), (6, 2)))
    learning = [tensor.requires_grad_() for tensor in (x, down, up)]
    assert torch.autograd.gradcheck(lambda x, down, up: LowRankLinear.apply(x, weight, bias, down, up, 0.7), learning)


def test_fused_layers_answer_and_learn_as_those_of_peft(base):
    own = adapted(base)
    fused = copy.deepcopy(own)
    assert fuse(fused) == 12
    (answers, gradients), (fused_answers, fused_gradients) = outcome(own), outcome(fused)
    torch.testing.assert_close(fused_answers, answers, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == fused_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-4, atol=1e-5)
    assert own.state_dict().keys() == fused.state_dict().keys()


def test_a_fused_adapter_can_be_turned_off_and_merged(base):
    fused = adapted(base).eval()
    with_adapter = outcome(fused)[0]
    fuse(fused)
    with fused.encoder.disable_adapter(), torch.inference_mode():
        off = fused(pack(ROWS)).topic.flatten()
    assert not torch.allclose(off, with_adapter[: len(off)], atol=1e-3)
    fused.encoder = fused.encoder.merge_and_unload()
    with torch.inference_mode():
        merged = fused(pack(ROWS)).topic.flatten()
    torch.testing.assert_close(merged, with_adapter[: len(merged)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.1}, {"bias": "lora_only"}, {"lora_bias": True}])
def test_layers_of_other_kinds_are_left_alone(base, options):
    assert fuse(adapted(base, **options)) == 0


def test_training_fuses_where_nothing_is_lost(base):
    def fused(**changes):
        model = build_model(base, 3, Recipe(rank=2, alpha=4, **changes), steps=10)
        return sum("forward" in vars(module) for module in model.modules())

    assert fused() == 12
    assert fused(method="dora") == fused(method="full", layer_decay=1.0) == fused(precision="bf16") == 0
