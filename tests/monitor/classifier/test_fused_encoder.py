"""The encoder taken apart says what transformers says, for every family, activation and shape that it takes on."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from monitor.classifier.fused_encoder import FusedEncoder, attend_by_run, attention_for, can_fuse
from monitor.classifier.model import add_adapter, linear_layers
from monitor.classifier.packed_encoder import encode, taken_apart
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}


def built(model_class, config_class, **changes):
    torch.manual_seed(3)
    model = model_class(config_class(**(SHAPE | changes))).eval().requires_grad_(False)
    # As published ones are: no bias and no scale is at the value that it begins with.
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            torch.nn.init.normal_(parameter, mean=float("LayerNorm.weight" in name), std=0.1)
    return model


FAMILIES = {
    "bert": lambda: built(BertModel, BertConfig),
    "bert, other rounding of the norm": lambda: built(BertModel, BertConfig, layer_norm_eps=0.3),
    "bert, approximate gelu": lambda: built(BertModel, BertConfig, hidden_act="gelu_new"),
    "bert, tanh gelu": lambda: built(BertModel, BertConfig, hidden_act="gelu_pytorch_tanh"),
    "bert, relu": lambda: built(BertModel, BertConfig, hidden_act="relu"),
    "bert, one head": lambda: built(BertModel, BertConfig, num_attention_heads=1),
    "roberta": lambda: built(RobertaModel, RobertaConfig, type_vocab_size=1),
    "camembert": lambda: built(CamembertModel, CamembertConfig, type_vocab_size=1, pad_token_id=4),
    "electra": lambda: built(ElectraModel, ElectraConfig, embedding_size=32),
    "electra, narrow embeddings": lambda: built(ElectraModel, ElectraConfig, embedding_size=16),
}
LENGTHS = (7, 1, 3, 7, 30, 2, 3, 7)


def rows(seed=5):
    chance = Random(seed)
    return [Prepared(tuple(chance.randrange(5, 60) for _ in range(length))) for length in LENGTHS]


def one_by_one(model, prepared):
    """The states of every row as transformers computes them alone, in packed order."""
    packed = pack(prepared)
    return torch.cat([model(torch.tensor([prepared[place].token_ids])).last_hidden_state[0] for place in packed.order])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_what_transformers_says(family):
    model = FAMILIES[family]()
    assert can_fuse(model)
    with torch.inference_mode():
        expected = one_by_one(model, rows())
        torch.testing.assert_close(FusedEncoder(model)(pack(rows())), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encode(model, pack(rows())), expected, atol=1e-5, rtol=1e-5)


def test_an_activation_that_it_does_not_know_runs_packed_by_its_own_modules():
    model = built(BertModel, BertConfig, hidden_act="silu")
    assert not can_fuse(model)
    assert taken_apart(model) is not None
    with torch.inference_mode():
        torch.testing.assert_close(encode(model, pack(rows())), one_by_one(model, rows()), atol=1e-5, rtol=1e-5)


def test_another_architecture_runs_its_own_forward_pass_on_padded_rows():
    torch.manual_seed(3)
    shape = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
    model = DistilBertModel(DistilBertConfig(**shape, initializer_range=0.2)).eval().requires_grad_(False)
    assert not can_fuse(model)
    assert taken_apart(model) is None
    with torch.inference_mode():
        torch.testing.assert_close(encode(model, pack(rows())), one_by_one(model, rows()), atol=1e-5, rtol=1e-5)


def test_a_decoder_is_not_taken_apart():
    assert not can_fuse(built(BertModel, BertConfig, is_decoder=True))


def test_an_adapter_that_is_not_merged_is_not_left_out():
    adapted = add_adapter(built(BertModel, BertConfig), rank=2, alpha=4)
    assert not can_fuse(adapted)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    merged = adapted.merge_and_unload().eval().requires_grad_(False)
    assert can_fuse(merged)
    assert len(linear_layers(merged)) == 2 * 6 + 1  # and the pooling layer, which it does not read
    with torch.inference_mode():
        torch.testing.assert_close(FusedEncoder(merged)(pack(rows())), one_by_one(merged, rows()), atol=1e-5, rtol=1e-5)


def test_the_encoder_stays_as_it_was_and_its_large_matrices_are_not_copied():
    model = FAMILIES["bert"]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = FusedEncoder(model)
    fused(pack(rows()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert fused._words.data_ptr() == model.embeddings.word_embeddings.weight.data_ptr()


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_is_near(precision, tolerance):
    model = FAMILIES["bert"]()
    found = FusedEncoder(model, "cpu", precision)(pack(rows()))
    assert found.dtype == precision
    with torch.inference_mode():
        expected = FusedEncoder(model)(pack(rows()))
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


def test_rows_do_not_read_each_other():
    fused = FusedEncoder(FAMILIES["bert"]())
    batch = rows()
    packed = pack(batch)
    changed = [replace(row, token_ids=tuple(59 for _ in row.token_ids)) if place == 4 else row for place, row in enumerate(batch)]
    own = torch.arange(packed.tokens) < LENGTHS[4]  # the longest row is packed first
    before, after = fused(packed), fused(pack(changed))
    assert packed.order[0] == 4
    torch.testing.assert_close(before[~own], after[~own], atol=0, rtol=0)
    assert not torch.allclose(before[own], after[own])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_cpu_attends_by_runs(precision):
    assert attention_for("cpu", precision, 32) is attend_by_run
