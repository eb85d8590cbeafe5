"""Two heads over packed states, each against the plainest way to say it; encoders and adapters from their folders."""

import pytest
import torch

from monitor.classifier.model import linear_layers, load_encoder
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared, Target
from monitor.errors import ModelError
from tests.monitor.classifier.tiny import tiny_model

ROWS = [
    Prepared((2, 30, 31, 3), (Target("halden", (1,)), Target("savings", (1, 2)))),
    Prepared((2, 28, 3)),
    Prepared((2, 25, 26, 27, 28, 29, 3), (Target("bank", (2, 5)),)),
]


def test_each_head_reads_what_it_is_about(base):
    model = tiny_model(base)
    packed = pack(ROWS)
    logits = model(packed)
    targets = dict(zip(packed.target_order, logits.toward, strict=True))
    for place, topic, sentiment in zip(packed.order, logits.topic, logits.sentiment, strict=True):
        row = ROWS[place]
        states = model.encoder(torch.tensor([row.token_ids])).last_hidden_state[0]
        whole = states.mean(0)
        torch.testing.assert_close(topic, model.topic_head(whole), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sentiment, model.sentiment_head(torch.cat([whole, whole])), atol=1e-5, rtol=1e-5)
        for which, target in enumerate(row.targets):
            about = states[list(target.places)].mean(0)
            toward = model.sentiment_head(torch.cat([about, whole]))
            torch.testing.assert_close(targets.pop((place, which)), toward, atol=1e-5, rtol=1e-5)
    assert not targets


def test_rows_without_targets_are_answered(base):
    logits = tiny_model(base)(pack([Prepared((2, 28, 3))]))
    assert (logits.topic.shape, logits.sentiment.shape, logits.toward.shape) == ((1, 3), (1, 3), (0, 3))


def test_a_loss_of_either_head_teaches_the_adapter_and_not_the_other_head(base):
    for head, silent in (("topic", "sentiment_head"), ("sentiment", "topic_head"), ("toward", "topic_head")):
        model = tiny_model(base)
        getattr(model(pack(ROWS)), head).sum().backward()
        assert getattr(model, silent).weight.grad is None
        assert any(bool(parameter.grad.abs().sum() > 0) for name, parameter in model.named_parameters() if "lora_A" in name)


def test_only_the_adapter_and_the_heads_learn(base):
    learning = {name for name, parameter in tiny_model(base).named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name or name.startswith(("topic_head", "sentiment_head")) for name in learning)


def test_every_linear_layer_of_the_encoder_gets_an_adapter(base):
    layers = linear_layers(load_encoder(base))
    assert len(layers) == 2 * 6
    adapted = [name for name, _ in tiny_model(base).named_parameters() if name.endswith("lora_A.default.weight")]
    assert len(adapted) == len(layers)


def test_a_folder_without_an_encoder_is_named(tmp_path):
    with pytest.raises(ModelError, match=f"{tmp_path} holds no encoder"):
        load_encoder(tmp_path)
