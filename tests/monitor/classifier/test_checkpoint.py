"""A checkpoint is loaded as it was trained, or refused with what is wrong, where, and what to do."""

import json
from copy import deepcopy
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoraConfig, PrefixTuningConfig
from safetensors.torch import save_file

from monitor.classifier.base_encoder import BASE_NAME, check_base, describe_base, find_base, sha256_of
from monitor.classifier.checkpoint import load_checkpoint, read_tensors, round_as_stored, write_checkpoint
from monitor.classifier.load import checkpoint_folder, load_classifier
from monitor.classifier.manifest import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    FORMAT_VERSION,
    HEADS_FILE,
    MANIFEST_FILE,
    WEIGHT_FILES,
    read_manifest,
)
from monitor.classifier.model import TwoHeadModel, attach, load_encoder
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared, Target
from monitor.config import ModelSettings
from monitor.errors import ModelError
from monitor.types import SENTIMENTS, Passage
from tests.monitor.classifier.tiny import (
    MAX_TOKENS,
    TOPICS,
    copy_of,
    edit_manifest,
    edit_tensors,
    seal,
    tiny_manifest,
    tiny_model,
    tiny_surprisals,
    write_base,
)

ROWS = pack(
    [
        Prepared((2, 30, 31, 3), (Target("halden", (1,)),)),
        Prepared((2, 28, 3)),
        Prepared((2, 25, 26, 27, 28, 29, 3), (Target("castor", (2, 3)), Target("halden", (5,)))),
    ]
)
SHIPPED = checkpoint_folder(ModelSettings())


def same(one, other):
    """Whether two models give the same logits to the same rows."""
    with torch.inference_mode():
        ours, theirs = one(ROWS), other(ROWS)
    return all(
        torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5, rtol=1e-5)
        for name in ("topic", "sentiment", "toward")
    )


def test_what_was_trained_is_what_is_loaded(base, checkpoint):
    model = tiny_model(base)
    round_as_stored(model)
    assert same(model, load_checkpoint(checkpoint, base).model)
    assert not same(tiny_model(base, seed=1), load_checkpoint(checkpoint, base).model)


LINEAR = ["query", "key", "value", "dense"]
ADAPTERS = {
    "DoRA": LoraConfig(r=2, lora_alpha=4, target_modules=LINEAR, use_dora=True),
    "AdaLoRA": AdaLoraConfig(init_r=3, target_r=1, total_step=8, tinit=1, tfinal=2, target_modules=LINEAR),
    "IA3": IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    "LoHa": LoHaConfig(r=2, alpha=4, target_modules=LINEAR),
}


def adapted(base, config):
    """A model with an adapter that was trained for a few steps; AdaLoRA prunes its ranks meanwhile."""
    torch.manual_seed(0)
    model = TwoHeadModel(attach(load_encoder(base), deepcopy(config)), len(TOPICS)).train()
    optimizer = torch.optim.Adam((parameter for parameter in model.parameters() if parameter.requires_grad), lr=0.02)
    for step in range(8):
        logits = model(ROWS)
        (logits.topic.square().sum() + (logits.toward - 1).square().sum()).backward()
        optimizer.step()
        if config.peft_type == "ADALORA":
            model.encoder.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_of_any_kind_that_changes_weights_is_merged(base, tmp_path, kind):
    model = adapted(base, ADAPTERS[kind])
    write_checkpoint(tmp_path, model, tiny_surprisals(base), tiny_manifest(base))
    loaded = load_checkpoint(tmp_path, base).model
    round_as_stored(model)
    assert same(model, loaded)
    assert type(loaded.encoder).__name__ == "BertModel"
    untouched = TwoHeadModel(load_encoder(base), len(TOPICS)).eval()
    untouched.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "head" in name}, strict=False)
    assert not same(model, untouched)


def test_what_adalora_prunes_to_nothing_is_nothing(base, tmp_path):
    write_checkpoint(tmp_path, adapted(base, ADAPTERS["AdaLoRA"]), tiny_surprisals(base), tiny_manifest(base))
    ranks = [len(tensor) for name, tensor in read_tensors(tmp_path / ADAPTER_FILE).items() if name.endswith("lora_A")]
    assert 0 in ranks
    assert sum(ranks) < 3 * len(ranks)


def test_an_adapter_that_adds_tokens_is_neither_written_nor_loaded(base, checkpoint, tmp_path):
    config = PrefixTuningConfig(num_virtual_tokens=2, task_type="FEATURE_EXTRACTION")
    model = TwoHeadModel(attach(load_encoder(base), config), len(TOPICS))
    told = "an adapter of kind PREFIX_TUNING adds tokens .* cannot be merged .* train one that changes weights"
    with pytest.raises(ModelError, match=told):
        write_checkpoint(tmp_path / "written", model, tiny_surprisals(base), tiny_manifest(base))
    assert not (tmp_path / "written").exists()
    folder = copy_of(checkpoint, tmp_path / "copied")
    config.save_pretrained(str(folder))
    seal(folder)
    with pytest.raises(ModelError, match=told):
        load_checkpoint(folder, base)


def test_an_adapter_is_written_in_one_order_on_every_run(base, tmp_path):
    for name in ("one", "other"):
        config = IA3Config(target_modules={"value", "output.dense", "key"}, feedforward_modules={"output.dense"})
        write_checkpoint(tmp_path / name, adapted(base, config), tiny_surprisals(base), tiny_manifest(base))
    written = [(tmp_path / name / ADAPTER_CONFIG_FILE).read_bytes() for name in ("one", "other")]
    assert written[0] == written[1]
    assert json.loads(written[0])["target_modules"] == ["key", "output.dense", "value"]


def test_the_adapter_is_merged_and_nothing_learns(base, checkpoint):
    model = load_checkpoint(checkpoint, base).model
    assert not any("lora" in name or parameter.requires_grad for name, parameter in model.named_parameters())
    assert not model.training


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_sentiments_are_found_by_name_in_whatever_order_they_were_trained(base, checkpoint, tmp_path, order):
    labels = tuple(SENTIMENTS[place] for place in order)
    model = tiny_model(base)
    with torch.no_grad():
        for tensor in (model.sentiment_head.weight, model.sentiment_head.bias):
            tensor.copy_(tensor[list(order)].clone())
    write_checkpoint(tmp_path / "other", model, tiny_surprisals(base), tiny_manifest(base, sentiments=labels))
    assert same(load_checkpoint(tmp_path / "other", base).model, load_checkpoint(checkpoint, base).model)


def test_the_version_follows_the_manifest_and_so_the_weights(base, checkpoint, tmp_path):
    same = copy_of(checkpoint, tmp_path / "same")
    other = copy_of(checkpoint, tmp_path / "other")
    edit_tensors(other, HEADS_FILE, lambda tensors: tensors["topic_head.bias"].add_(1))
    versions = [load_checkpoint(folder, base).version for folder in (checkpoint, same, other)]
    assert versions[0] == versions[1] != versions[2]
    assert len(versions[0]) == 12


def test_a_written_checkpoint_names_the_base_and_no_path(checkpoint):
    config = json.loads((checkpoint / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "invented/tiny"
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted([*WEIGHT_FILES, MANIFEST_FILE])


def edited(change):
    return lambda folder: edit_manifest(folder, change)


def calibration(name, key, value):
    return edited(lambda content: content["calibration"][name].update({key: value}))


def field(name, value):
    return edited(lambda content: content.update({name: value}))


def written(file, content):
    return lambda folder: (folder / file).write_bytes(content)


def sealed(file, content):
    def breaking(folder):
        (folder / file).write_bytes(content)
        seal(folder)

    return breaking


def tensors(file, change):
    return lambda folder: edit_tensors(folder, file, change)


def poisoned(name, value):
    def change(found):
        found[name].view(-1)[0] = value

    return change


def widened(name):
    def change(found):
        found[name] = torch.cat([found[name], found[name][:1]])

    return change


LAYER = "base_model.model.encoder.layer.0.output.dense.lora_A.weight"
NO_UTF_8 = b'{"format_version": %d, "created": "\xff"}' % FORMAT_VERSION
BROKEN = {
    "no manifest": (
        lambda folder: (folder / MANIFEST_FILE).unlink(),
        r"is no checkpoint: it has no manifest\.json; give the checkpoint",
    ),
    "manifest is a folder": (
        lambda folder: ((folder / MANIFEST_FILE).unlink(), (folder / MANIFEST_FILE).mkdir()),
        r"manifest\.json cannot be read: Is a directory",
    ),
    "manifest is no JSON": (written(MANIFEST_FILE, b"{"), r"manifest\.json is no manifest of a checkpoint: .*again"),
    "manifest is no UTF-8": (
        written(MANIFEST_FILE, b'{"format_version": %d, "created": "\xff"}' % FORMAT_VERSION),
        "is no manifest of a checkpoint",
    ),
    "manifest is a list": (written(MANIFEST_FILE, b"[]"), "is no manifest of a checkpoint"),
    "manifest is empty": (written(MANIFEST_FILE, b""), "is no manifest of a checkpoint"),
    "newer format": (
        edited(lambda content: content.update(format_version=FORMAT_VERSION + 1)),
        f"has format {FORMAT_VERSION + 1}, .* reads format {FORMAT_VERSION}: update Bellwether",
    ),
    "newer format, otherwise unknown": (written(MANIFEST_FILE, b'{"format_version": 7}'), "has format 7, .*: update Bellwether"),
    "older format": (edited(lambda content: content.update(format_version=1)), "has format 1, .*: train the checkpoint again"),
    "a field is missing": (edited(lambda content: content.pop("seed")), "missing required field `seed`"),
    "a field has another type": (calibration("topic", "temperature", "warm"), r"\$\.calibration\.topic\.temperature"),
    "two sentiments": (
        field("sentiments", ["negative", "positive"]),
        "sentiments must be exactly negative, neutral, positive",
    ),
    "a sentiment twice": (
        field("sentiments", ["negative", "neutral", "positive", "neutral"]),
        "sentiments must be exactly negative, neutral, positive",
    ),
    "other sentiments": (field("sentiments", ["bearish", "neutral", "bullish"]), "not bearish, neutral, bullish"),
    "a single topic": (field("topics", ["all"]), "topics must be two or more names"),
    "a nameless topic": (field("topics", ["a", " ", "b"]), "topics must be two or more names"),
    "a topic twice": (field("topics", ["a", "b", "a"]), "topics must differ"),
    "no temperature": (calibration("topic", "temperature", 0.0), r"calibration\.topic\.temperature must be above 0, not 0"),
    "a negative temperature": (
        calibration("sentiment", "temperature", -1.0),
        r"calibration\.sentiment\.temperature must be above 0",
    ),
    "no temperature toward an entity": (
        calibration("toward", "temperature", 0.0),
        r"calibration\.toward\.temperature must be above 0",
    ),
    "a limit above one": (
        calibration("sentiment", "uncertain_below", 1.01),
        r"sentiment\.uncertain_below must lie between 0 and 1",
    ),
    "a limit below nought": (calibration("topic", "uncertain_below", -0.01), r"topic\.uncertain_below must lie between 0 and 1"),
    "no room for a token": (edited(lambda content: content.update(max_tokens=1)), "max_tokens must be at least 2, not 1"),
    "more tokens than the base reads": (
        edited(lambda content: content.update(max_tokens=65)),
        "max_tokens is 65, the base reads 64",
    ),
    "other pooling": (edited(lambda content: content.update(pooling="cls")), "pooling 'cls' is unknown"),
    "other normalisation": (edited(lambda content: content.update(normalisation=99)), "normalised by rules 99"),
    "a file not listed": (edited(lambda content: content["files"].pop(HEADS_FILE)), r"files does not list heads\.safetensors"),
    "heads missing": (lambda folder: (folder / HEADS_FILE).unlink(), r"heads\.safetensors cannot be read: No such file"),
    "adapter changed": (written(ADAPTER_FILE, b"else"), r"adapter_model\.safetensors is not the file that manifest\.json lists"),
    "adapter's configuration changed": (written(ADAPTER_CONFIG_FILE, b"{}"), r"adapter_config\.json is not the file that"),
    "heads changed": (
        written(HEADS_FILE, b"else"),
        r"heads\.safetensors is not the file that manifest\.json lists .* copy the whole",
    ),
    "heads are no tensors": (sealed(HEADS_FILE, b"else"), r"heads\.safetensors cannot be read as safetensors"),
    "adapter is no tensors": (sealed(ADAPTER_FILE, b"else"), r"adapter_model\.safetensors cannot be read as safetensors"),
    "adapter's configuration is empty": (sealed(ADAPTER_CONFIG_FILE, b"{}"), r"does not fit the base"),
    "adapter's configuration is no JSON": (sealed(ADAPTER_CONFIG_FILE, b"{"), r"adapter_config\.json does not fit"),
    "adapter for other layers": (
        sealed(ADAPTER_CONFIG_FILE, b'{"peft_type": "LORA", "r": 2, "target_modules": ["elsewhere"]}'),
        r"adapter_config\.json does not fit the base",
    ),
    "adapter of another rank": (
        sealed(ADAPTER_CONFIG_FILE, b'{"peft_type": "LORA", "r": 3, "target_modules": ["query", "key", "value", "dense"]}'),
        r"does not fit the base and the manifest: .* has shape \(2, 32\), not \(3, 32\); .* and 21 more",
    ),
    "NaN in the adapter": (tensors(ADAPTER_FILE, poisoned(LAYER, float("nan"))), f"numbers that are not finite, in {LAYER}"),
    "NaN in a head": (
        tensors(HEADS_FILE, poisoned("topic_head.bias", float("nan"))),
        "numbers that are not finite, in topic_head.bias",
    ),
    "infinity in a head": (
        tensors(HEADS_FILE, poisoned("sentiment_head.weight", float("inf"))),
        "not finite, in sentiment_head.weight",
    ),
    "a layer is missing": (tensors(ADAPTER_FILE, lambda found: found.pop(LAYER)), f"{LAYER} is missing"),
    "a layer too many": (tensors(ADAPTER_FILE, lambda found: found.update(more=torch.ones(1))), "more belongs nowhere"),
    "a topic too many": (
        tensors(HEADS_FILE, widened("topic_head.weight")),
        r"topic_head\.weight has shape \(4, 32\), not \(3, 32\)",
    ),
    "a head is missing": (tensors(HEADS_FILE, lambda found: found.pop("sentiment_head.bias")), r"sentiment_head\.bias is missing"),
    "a topic too few in the manifest": (field("topics", ["a", "b"]), r"topic_head\.\w+ has shape \(3.*\), not \(2"),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_checkpoint_is_refused_with_what_is_wrong(base, checkpoint, tmp_path, breaking, message):
    folder = copy_of(checkpoint, tmp_path / "broken")
    breaking(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(folder, base)
    assert str(folder) in str(caught.value)


def test_limits_at_the_ends_of_their_ranges_are_allowed(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "edge")
    calibration("topic", "uncertain_below", 0)(folder)
    calibration("sentiment", "uncertain_below", 1)(folder)
    edit_manifest(folder, lambda content: content.update(max_tokens=2))
    manifest = read_manifest(folder)
    limits = manifest.calibration
    assert (limits.topic.uncertain_below, limits.sentiment.uncertain_below, manifest.max_tokens) == (0, 1, 2)


def test_as_many_tokens_as_the_base_reads_are_allowed(base, checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "long")
    edit_manifest(folder, lambda content: content.update(max_tokens=64))
    assert load_checkpoint(folder, base).manifest.max_tokens == 64


def test_every_fault_of_a_manifest_is_told_at_once(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "broken")
    edit_manifest(folder, lambda content: content.update(pooling="cls", max_tokens=0))
    with pytest.raises(ModelError, match="max_tokens must be at least 2, not 0; pooling 'cls' is unknown"):
        read_manifest(folder)


def test_another_base_is_refused(checkpoint, tmp_path):
    other = write_base(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match=r"is not the base invented/tiny .*: model\.safetensors has SHA-256 .*set model\.base"):
        load_checkpoint(checkpoint, other)


def test_another_tokenizer_is_refused(base, tmp_path):
    other = copy_of(base, tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    (other / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r": tokenizer\.json has SHA-256"):
        check_base(other, describe_base(base, "invented/tiny"))


def test_a_base_is_known_by_its_numbers_however_its_files_are_laid_out(base, tmp_path):
    other = copy_of(base, tmp_path / "other")
    tensors = {f"bert.{name}": tensor for name, tensor in read_tensors(base / "model.safetensors").items()}
    tensors["cls.predictions.bias"] = torch.ones(3)
    save_file(tensors, other / "model.safetensors", {"written by": "someone else"})
    content = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    content.update(truncation=None, padding=None)
    (other / "tokenizer.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    assert sha256_of(other / "model.safetensors") != sha256_of(base / "model.safetensors")
    check_base(other, describe_base(base, "invented/tiny"))


def test_a_single_number_makes_another_base(base, tmp_path):
    other = copy_of(base, tmp_path / "other")
    tensors = read_tensors(base / "model.safetensors")
    tensors["encoder.layer.1.output.dense.bias"][0] += 1e-6
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(ModelError, match=r": model\.safetensors has SHA-256"):
        check_base(other, describe_base(base, "invented/tiny"))


def test_a_base_that_is_nowhere_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"not installed, and invented/nowhere is not to be had .*: set model\.base to a folder"):
        find_base(None, "invented/nowhere")
    with pytest.raises(ModelError, match="run `bellwether fetch-base`, or set"):
        find_base(None, BASE_NAME)


def test_a_base_folder_that_lacks_files_is_refused_without_looking_elsewhere(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json, model\.safetensors, tokenizer\.json missing; set model\.base"):
        find_base(tmp_path, BASE_NAME)


def test_the_manifest_keeps_what_it_was_given(base, tmp_path):
    given = tiny_manifest(base)
    complete = write_checkpoint(tmp_path, tiny_model(base), tiny_surprisals(base), given)
    assert read_manifest(tmp_path) == complete
    assert replace(complete, files={}) == given
    assert complete.max_tokens == MAX_TOKENS


shipped = pytest.mark.skipif(not SHIPPED.is_dir(), reason="this tree has no shipped checkpoint")


@shipped
def test_the_shipped_checkpoint_loads_and_answers_as_it_should():
    classifier = load_classifier(ModelSettings(device="cpu"))
    bad, dull, good = classifier.classify(
        classifier.prepare(
            [
                Passage("Orlen Vale Bank shares plunge 22% after it warns on bad loans"),
                Passage("Castor Trust names new head of compliance"),
                Passage("Halden Savings quarterly earnings beat estimates on record lending"),
            ]
        )
    )
    assert tuple(answer.document.tone for answer in (bad, dull, good)) == ("negative", "neutral", "positive")
    assert (bad.topic, dull.topic, good.topic) == ("Stock Movement", "Personnel Change", "Financials")
    assert classifier.undefined == 0


@shipped
def test_the_shipped_checkpoint_says_where_it_comes_from():
    manifest = read_manifest(SHIPPED)
    assert len(manifest.topics) == 20
    assert "Financials" in manifest.topics
    assert manifest.base.name == BASE_NAME
    assert {file.licence for file in manifest.data} == {"MIT"}
    assert all(file.sha256 and file.rows > 1_000 for file in manifest.data)
    assert manifest.recipe.get("limit", 0) == 0
    for figures in manifest.metrics.values():
        assert figures["macro_f1"] > 0.75
        assert figures["calibration_error"] < 0.05
    assert {"torch", "transformers", "peft"} <= manifest.libraries.keys()
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 6_000_000
