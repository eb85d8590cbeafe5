"""A published checkpoint answers as transformers lets it answer, whatever else is in the batch, or is refused with the reason."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from transformers import AutoModelForSequenceClassification

from monitor.classifier.published import find_published
from monitor.classifier.sequence_classification import FirstTokenModel, OwnForwardModel, SequenceClassifier
from monitor.config import SentimentSettings, TopicSettings
from monitor.errors import DeviceLost, ModelError
from monitor.types import SENTIMENTS, Mention, Passage
from tests.monitor.classifier.tiny import WORDS, copy_of, edit_config, write_sequence_classifier

NAMES = ("positive", "negative", "neutral")
FAMILIES = {
    "bert": (FirstTokenModel, {}),
    "roberta": (FirstTokenModel, {"pad_token_id": 1}),
    "xlm-roberta": (FirstTokenModel, {"pad_token_id": 1}),
    "electra": (FirstTokenModel, {"embedding_size": 16}),
    "distilbert": (OwnForwardModel, {}),
    "deberta-v2": (OwnForwardModel, {}),
    "gpt2": (OwnForwardModel, {"bos_token_id": 2, "eos_token_id": 3}),
}
TOLERANCE = 1e-4


def loaded(folder, device="cpu", pass_tokens=None, **settings):
    found = find_published("sentiment", SentimentSettings(checkpoint=folder, **settings), fetch=False)
    return SequenceClassifier(found, device, pass_tokens)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A family's name, a checkpoint of it as transformers loads it, and as we do, with passes of several sizes."""
    forward, changes = FAMILIES[request.param]
    folder = write_sequence_classifier(tmp_path_factory.mktemp("published") / request.param, NAMES, request.param, **changes)
    ours = {tokens: loaded(folder, pass_tokens=tokens) for tokens in (1, 60, 4_096)}
    assert all(isinstance(classifier._model, forward) for classifier in ours.values())
    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), ours


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_sequence_classifier(tmp_path_factory.mktemp("published") / "bert", NAMES)


def by_transformers(model, rows):
    """The probabilities that the model's own forward pass gives to each row alone, in our order."""
    with torch.inference_mode():
        logits = torch.cat([model(input_ids=torch.tensor([row.token_ids])).logits for row in rows])
    return logits.softmax(dim=1)[:, [model.config.label2id[label] for label in SENTIMENTS]].numpy()


word_soup = st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(word_soup, min_size=1, max_size=10), pass_tokens=st.sampled_from([1, 60, 4_096]))
def test_any_batch_gives_the_answers_of_transformers(family, texts, pass_tokens):
    model, ours = family
    rows = ours[pass_tokens].prepare([Passage(text) for text in texts])
    answers = ours[pass_tokens].answer(rows)
    np.testing.assert_allclose([answer.probabilities for answer in answers], by_transformers(model, rows), atol=TOLERANCE)
    for answer in answers:
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-9)
        assert answer.label == SENTIMENTS[int(np.argmax(answer.probabilities))]


def test_rows_of_a_batch_that_transformers_pads_have_the_same_answers(family):
    model, ours = family
    rows = ours[60].prepare(
        [Passage(text) for text in ("bank profit falls", "b", "the queue of savings in halden rises to a loss")]
    )
    padded = torch.full((3, max(row.tokens for row in rows)), model.config.pad_token_id)
    for place, row in enumerate(rows):
        padded[place, : row.tokens] = torch.tensor(row.token_ids)
    with torch.inference_mode():
        logits = model(input_ids=padded, attention_mask=(padded != model.config.pad_token_id).long()).logits
    theirs = logits.softmax(dim=1)[:, [model.config.label2id[label] for label in SENTIMENTS]].numpy()
    np.testing.assert_allclose([answer.probabilities for answer in ours[60].answer(rows)], theirs, atol=TOLERANCE)


def test_different_texts_get_different_answers(family):
    _, ours = family
    one, other = ours[60].answer(ours[60].prepare([Passage("profit rises"), Passage("halden falls in the queue")]))
    assert max(abs(a - b) for a, b in zip(one.probabilities, other.probabilities, strict=True)) > 0.01


@pytest.mark.parametrize(("name", "forward"), [("bert", "packed"), ("distilbert", "its own")])
def test_it_says_whether_a_checkpoint_runs_packed_or_by_its_own_code(tmp_path, name, forward):
    folder = write_sequence_classifier(tmp_path, NAMES, name)
    with capture_logs() as logs:
        classifier = loaded(folder)
    (said,) = [line for line in logs if line["event"] == "model.role"]
    assert said["forward"] == forward
    assert classifier.engine.encoder == ("packed" if forward == "packed" else "padded")


def test_nothing_in_nothing_out(bert):
    assert loaded(bert).answer([]) == []


def test_answers_for_one_label_are_added_and_those_for_none_left_out(tmp_path):
    names = ("awful", "bad", "dull", "good", "spam")
    folder = write_sequence_classifier(tmp_path, names)
    meanings = {"awful": "negative", "bad": "negative", "dull": "neutral", "good": "positive", "spam": None}
    classifier = loaded(folder, labels=meanings, temperature=1.7)
    rows = classifier.prepare([Passage("bank falls"), Passage("gain in savings of halden")])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for row, answer in zip(rows, classifier.answer(rows), strict=True):
        with torch.inference_mode():
            given = (model(input_ids=torch.tensor([row.token_ids])).logits[0, :4] / 1.7).softmax(dim=0).tolist()
        assert answer.probabilities == pytest.approx((given[0] + given[1], given[2], given[3]), abs=TOLERANCE)


def test_two_answers_leave_neutral_without_probability_and_doubt_uncertain(tmp_path):
    folder = write_sequence_classifier(tmp_path, ("NEGATIVE", "POSITIVE"))
    classifier = loaded(folder, uncertain_below=0.9)
    answers = classifier.answer(classifier.prepare([Passage(" ".join(words)) for words in itertools.pairwise(WORDS)]))
    assert {answer.probabilities[1] for answer in answers} == {0.0}
    assert {answer.uncertain for answer in answers} == {True, False}
    assert all(answer.uncertain == (max(answer.probabilities) < 0.9) for answer in answers)


def test_topics_have_the_names_of_the_configuration(tmp_path):
    folder = write_sequence_classifier(tmp_path, ("LABEL_0", "LABEL_1", "weather"))
    wanted = TopicSettings(checkpoint=folder, labels={"LABEL_0": "credit", "LABEL_1": "earnings"})
    classifier = SequenceClassifier(find_published("topic", wanted, fetch=False), "cpu")
    assert classifier.labels == ("credit", "earnings", "weather")
    (answer,) = classifier.answer(classifier.prepare([Passage("loss of savings")]))
    assert answer.label == classifier.labels[answer.probabilities.index(max(answer.probabilities))]


def test_a_long_text_is_read_as_far_as_the_settings_and_the_checkpoint_allow(tmp_path, bert):
    long = Passage("bank profit falls . " * 200)
    roberta = write_sequence_classifier(tmp_path, NAMES, "roberta", pad_token_id=1, max_position_embeddings=34)
    for classifier, limit in ((loaded(bert, max_tokens=16), 16), (loaded(bert, max_tokens=512), 64), (loaded(roberta), 32)):
        (row,) = classifier.prepare([long])
        assert (row.tokens, row.truncated) == (limit, True)
        assert len(classifier.answer([row])) == 1


def test_a_checkpoint_published_with_a_word_list_alone_is_read_by_it(tmp_path, bert):
    folder = copy_of(bert, tmp_path / "old")
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 64}', encoding="utf-8")
    passages = [Passage("Bank PROFIT falls", (Mention(0, 4, "halden"),)), Passage("")]
    assert loaded(folder).prepare(passages) == loaded(bert).prepare(passages)


# --- what goes wrong -------------------------------------------------------------------------------


class Scripted:
    """A model that fails, or is out of memory, as scripted; else the logits are the second token of each row."""

    def __init__(self, largest_batch=None, error=None, logits=None):
        self.largest_batch = largest_batch
        self.error = error
        self.logits = logits or {}

    def __call__(self, packed):
        if self.error is not None:
            raise self.error
        if self.largest_batch is not None and packed.rows > self.largest_batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seconds = [int(packed.token_ids[start + 1]) for start in packed.starts[:-1]]
        return torch.tensor([self.logits.get(token, (0.0, float(token), 0.0)) for token in seconds])


@pytest.fixture
def scripted(bert):
    def build(**script):
        classifier = loaded(bert)
        classifier._model = Scripted(**script)
        return classifier

    return build


def rows_of(classifier, *words):
    return classifier.prepare([Passage(word) for word in words])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_text_without_numbers_is_uncertain_and_costs_only_itself(scripted, bad):
    classifier = scripted()
    rows = rows_of(classifier, "bank", "loss")
    classifier._model.logits[rows[0].token_ids[1]] = (bad, 0.0, 0.0)
    lost, kept = classifier.answer(rows)
    assert (lost.probabilities, lost.uncertain) == (pytest.approx((1 / 3,) * 3), True)
    assert (kept.label, kept.uncertain) == ("negative", False)
    assert classifier.effort().undefined == 1
    assert classifier.effort().undefined == 0


def test_what_does_not_fit_into_memory_is_answered_in_halves_and_in_order(scripted):
    classifier = scripted(largest_batch=2)
    rows = rows_of(classifier, *WORDS[:7])
    negatives = [answer.probabilities[0] for answer in classifier.answer(rows)]
    expected = [scripted().answer([row])[0].probabilities[0] for row in rows]
    assert negatives == pytest.approx(expected)
    effort = classifier.effort()
    assert sum(effort.pass_tokens) == sum(row.tokens for row in rows)
    assert effort.halvings > 0


def test_one_text_that_does_not_fit_means_the_device_is_lost(scripted):
    classifier = scripted(largest_batch=0)
    with pytest.raises(DeviceLost, match="one text of 3 tokens does not fit"):
        classifier.answer(rows_of(classifier, "bank", "loss"))


def test_a_failing_device_is_lost_and_a_fault_of_ours_is_not_blamed_on_it(scripted):
    with pytest.raises(DeviceLost, match="restart the process"):
        (broken := scripted(error=torch.AcceleratorError("an illegal memory access"))).answer(rows_of(broken, "bank"))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        (broken := scripted(error=RuntimeError("mat1 and mat2 shapes"))).answer(rows_of(broken, "bank"))
    assert not isinstance(caught.value, DeviceLost)


def without_head(folder):
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def with_nan(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][0] = math.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def with_another_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(50))]), encoding="utf-8"
    )


def with_own_code(folder):
    """An architecture that transformers does not know, with code that would leave a trace."""
    edit_config(
        folder,
        lambda config: config.update(
            model_type="invented", auto_map={"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"}
        ),
    )
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n", encoding="utf-8")


BROKEN = {
    "the head is missing": (
        without_head,
        r"lacks weights, so that it would answer by chance: classifier\.bias, classifier\.weight",
    ),
    "a number is none": (with_nan, r"numbers that are not finite, in classifier\.bias"),
    "a tensor has another shape": (
        lambda folder: edit_config(folder, lambda config: config.update(hidden_size=64)),
        "no classifier that can",
    ),
    "weights are no tensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"else"),
        "no classifier that can be loaded",
    ),
    "the architecture is unknown": (with_own_code, "no classifier that can be loaded"),
    "the tokenizer is broken": (
        lambda folder: (folder / "tokenizer.json").write_bytes(b"{"),
        "holds no tokenizer that can be loaded",
    ),
    "the tokenizer is another one": (with_another_tokenizer, "the tokenizer makes 55 different tokens, the model knows 40"),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_checkpoint_is_refused_with_what_is_wrong(tmp_path, bert, breaking, message):
    folder = copy_of(bert, tmp_path / "broken")
    breaking(folder)
    with pytest.raises(ModelError, match=message) as caught:
        loaded(folder)
    assert f"model.sentiment: {folder}" in str(caught.value)
    assert not (folder / "ran").exists()


def test_a_model_that_answers_only_one_text_at_a_time_is_refused(tmp_path):
    folder = write_sequence_classifier(tmp_path, NAMES, "gpt2", bos_token_id=2, eos_token_id=3)
    edit_config(folder, lambda config: config.pop("pad_token_id"))
    with pytest.raises(ModelError, match="cannot answer two texts of 64 tokens: Cannot handle batch sizes > 1"):
        loaded(folder)


def test_positions_that_are_not_there_are_found_before_the_first_text(tmp_path):
    folder = write_sequence_classifier(tmp_path, NAMES, "mpnet", pad_token_id=1)
    with pytest.raises(ModelError, match=r"cannot answer two texts of 64 tokens: .*; try a lower max_tokens"):
        loaded(folder)
    assert loaded(folder, max_tokens=62).answer([]) == []


def test_a_device_that_is_not_there_is_refused(bert):
    with pytest.raises(ModelError, match=r"model\.device is cuda:99"):
        loaded(bert, device="cuda:99")
