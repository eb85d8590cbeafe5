"""Pooling, padding and the loss, each against the plainest way to say it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.model import UNLABELLED, linear_layers, load_encoder, masked_loss, mean_of_real_tokens, pad
from monitor.errors import ModelError
from tests.monitor.classifier.tiny import TOPICS, tiny_model


def test_the_mean_leaves_padding_out_even_where_it_is_not_a_number():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [math.nan, math.inf]]])
    assert mean_of_real_tokens(states, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]


def test_the_mean_of_no_token_is_zero():
    assert mean_of_real_tokens(torch.full((1, 2, 2), math.nan), torch.tensor([[0, 0]])).tolist() == [[0.0, 0.0]]


def test_padding_fills_to_the_longest_and_the_mask_knows_it():
    token_ids, mask = pad([(5, 6, 7), (8,)], padding_id=1)
    assert token_ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert pad([()])[0].shape == (1, 1)


labels = st.tuples(
    st.one_of(st.just(UNLABELLED), st.integers(0, len(TOPICS) - 1)), st.one_of(st.just(UNLABELLED), st.integers(0, 2))
)
logit = st.floats(-8, 8, width=32)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(labels, st.tuples(*[logit] * 3), st.tuples(*[logit] * 3)), min_size=1, max_size=6),
    st.tuples(*[st.floats(0.25, 4)] * 3),
)
def test_the_loss_is_the_mean_over_the_labels_that_are_there(rows, weights):
    losses = []
    for (topic, sentiment), topic_logits, sentiment_logits in rows:
        if topic != UNLABELLED:
            losses.append(weights[topic] * (math.log(sum(map(math.exp, topic_logits))) - topic_logits[topic]))
        if sentiment != UNLABELLED:
            losses.append(math.log(sum(map(math.exp, sentiment_logits))) - sentiment_logits[sentiment])
    found = masked_loss(
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[2] for row in rows]),
        topics=torch.tensor([row[0][0] for row in rows]),
        sentiments=torch.tensor([row[0][1] for row in rows]),
        topic_weights=torch.tensor(weights),
    )
    assert float(found) == pytest.approx(sum(losses) / len(losses) if losses else 0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("topics", "sentiments", "silent"), [([1], [UNLABELLED], "sentiment_head"), ([UNLABELLED], [2], "topic_head")]
)
def test_an_example_without_a_label_for_a_head_does_not_teach_it(base, topics, sentiments, silent):
    model = tiny_model(base)
    logits = model(*pad([(2, 10, 11, 3)]))
    masked_loss(*logits, topics=torch.tensor(topics), sentiments=torch.tensor(sentiments)).backward()
    for name in ("topic_head", "sentiment_head"):
        taught = bool(getattr(model, name).weight.grad.abs().sum() > 0)
        assert taught is (name != silent)


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
