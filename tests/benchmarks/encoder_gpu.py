"""Documents a second of the encoder on one GPU, as a share of what its matrix units can do, beside the pipeline, as JSON.

`python -m tests.benchmarks.encoder_gpu [--precision bf16] [--seconds 3] [--smoke]`

Two encoders with random weights, since speed does not depend on them: of the size of MiniLM-L6 and of BERT-base. The roof is the
best of a few large matrix products in the same precision, measured here. "encoder" is the encoder alone on batches that lie on the
device; "passes" is everything behind the tokenizer: packed, copied, encoded, averaged, copied back; "host" is what the processor
spends on a document of it, and on tokenising one. The pipeline is that of transformers, in fp16, 64 texts at once. Without CUDA it
says so and ends; `--smoke` runs a hundredth of it on the CPU, to see that it runs.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast, pipeline

from monitor.classifier.fused_encoder import FusedEncoder
from monitor.classifier.packing import mean_per_segment, pack
from monitor.classifier.passes import PRECISIONS, Passes, passes
from monitor.classifier.protocol import Prepared
from monitor.classifier.tokens import prepare
from monitor.types import Passage

VOCABULARY = 30_522
LONGEST = 256
LENGTHS = ("20", "64", "128", "mixed")
PIPELINE_BATCH = 64
MINILM, BERT_BASE = "MiniLM-L6", "BERT-base"
SHAPES = {
    MINILM: {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1_536},
    BERT_BASE: {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3_072},
}
SMALL = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, and where. `pass_tokens`: the size of a pass; None: what suits the device."""

    device: str
    precision: str
    seconds: float
    documents: int
    roof_size: int
    pass_tokens: int | None
    shapes: dict[str, dict[str, int]]

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()


def lengths(kind: str, number: int, seed: int = 7) -> list[int]:
    """Tokens of each document: all the same, or 75 % of 12 to 25, 15 % of 30 to 80, 10 % of 128 to 256."""
    if kind != "mixed":
        return [int(kind)] * number
    chance = Random(seed)
    kinds = [(12, 25)] * 15 + [(30, 80)] * 3 + [(128, LONGEST)] * 2
    return [chance.randint(*chance.choice(kinds)) for _ in range(number)]


def invented(kind: str, number: int) -> list[Prepared]:
    chance = Random(3)
    return [Prepared(tuple(chance.choices(range(1_000, VOCABULARY), k=length))) for length in lengths(kind, number)]


def flops(shape: dict[str, int], rows: Sequence[Prepared]) -> float:
    """Multiplications and additions of the matrix products of one forward pass, attention included."""
    hidden, wide, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    linear = 2 * (4 * hidden * hidden + 2 * hidden * wide)
    return layers * sum(linear * row.tokens + 4 * hidden * row.tokens**2 for row in rows)


def per_second(plan: Plan, run: Callable[[], None], least: int = 3) -> float:
    """How often `run` is done a second: the median over the whole time, after one to warm up."""
    run()
    plan.wait()
    spent: list[float] = []
    while sum(spent) < plan.seconds or len(spent) < least:
        began_s = time.perf_counter()
        run()
        plan.wait()
        spent.append(time.perf_counter() - began_s)
    return 1 / statistics.median(spent)


def roof(plan: Plan) -> float:
    """The best FLOP/s of square matrix products in the precision of the run."""
    best = 0.0
    for size in (plan.roof_size, 2 * plan.roof_size):
        one, other = (torch.randn(size, size, device=plan.device, dtype=PRECISIONS[plan.precision]) for _ in range(2))
        best = max(best, 2 * size**3 * per_second(plan, lambda one=one, other=other: torch.mm(one, other)))  # type: ignore[misc]
    return best


def measure_encoder(plan: Plan, shape: dict[str, int], kind: str, roof_flops: float) -> dict[str, float]:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCABULARY, **shape)
    encoder = FusedEncoder(BertModel(config, add_pooling_layer=False).eval(), plan.device, PRECISIONS[plan.precision])
    rows = invented(kind, plan.documents)
    engine = Passes(plan.device, plan.pass_tokens)
    groups = [[rows[place] for place in places] for places in passes([row.tokens for row in rows], engine._tokens)]
    there = [pack(group).to(plan.device) for group in groups]

    def encode() -> None:
        for packed in there:
            encoder(packed)

    def whole() -> None:
        for _ in engine.run(rows, lambda packed: [mean_per_segment(encoder(packed).float(), packed.lengths)]):
            pass

    alone = per_second(plan, encode) * len(rows)
    began_s = time.process_time()
    rounds = 0
    deadline = time.monotonic() + plan.seconds
    while rounds == 0 or time.monotonic() < deadline:
        for group in groups:
            pack(group)
        rounds += 1
    packing_s = (time.process_time() - began_s) / (rounds * len(rows))
    behind = per_second(plan, whole) * len(rows)
    work = flops(shape, rows) / len(rows)
    return {
        "mean_tokens": round(sum(row.tokens for row in rows) / len(rows), 1),
        "gflop_a_document": round(work / 1e9, 3),
        "encoder_documents_per_s": round(alone),
        "encoder_share_of_roof": round(alone * work / roof_flops, 3),
        "passes_documents_per_s": round(behind),
        "passes_share_of_roof": round(behind * work / roof_flops, 3),
        "host_packing_microseconds_a_document": round(packing_s * 1e6, 2),
    }


def words_and_tokenizer(folder: Path) -> tuple[list[str], PreTrainedTokenizerFast]:
    """Invented words, and a tokenizer that has a token for each; written for the pipeline."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [f"{first}{second}{third}" for first in "bdfgklmnprstvz" for second in "aeiou" for third in "bdfgklmnprstvz"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return words, PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def measure_pipeline(plan: Plan, shape: dict[str, int], kind: str, folder: Path) -> float:
    """Documents a second of the pipeline of transformers, from the texts."""
    words, tokenizer = words_and_tokenizer(folder)
    chance = Random(5)
    number = max(PIPELINE_BATCH, plan.documents // 16)
    texts = [" ".join(chance.choices(words, k=max(1, length - 2))) for length in lengths(kind, number)]
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_labels=3, **shape)).eval()
    half = plan.device != "cpu"
    classify = pipeline(
        "text-classification",
        model=model.half() if half else model,
        tokenizer=tokenizer,
        device=plan.device,
        batch_size=PIPELINE_BATCH,
    )
    return per_second(plan, lambda: classify(texts), least=1) * len(texts)


def measure_tokenizer(plan: Plan, folder: Path) -> float:
    """Microseconds that the processor spends on tokenising a document of the mixed lengths, all its threads together."""
    from tokenizers import Tokenizer

    words, _ = words_and_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    chance = Random(5)
    passages = [Passage(" ".join(chance.choices(words, k=max(1, length - 2)))) for length in lengths("mixed", plan.documents)]
    prepare(passages[:PIPELINE_BATCH], tokenizer, LONGEST)
    began_s = time.process_time()
    prepare(passages, tokenizer, LONGEST)
    return (time.process_time() - began_s) / len(passages) * 1e6


def measure(plan: Plan) -> dict[str, Any]:
    roof_flops = roof(plan)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoders = {
            size: {
                kind: measure_encoder(plan, shape, kind, roof_flops)
                | {"pipeline_documents_per_s": round(measure_pipeline(plan, shape, kind, folder))}
                for kind in LENGTHS
            }
            for size, shape in plan.shapes.items()
        }
        tokenising = measure_tokenizer(plan, folder)
    for found in encoders.values():
        for line in found.values():
            line["passes_is_times_pipeline"] = round(line["passes_documents_per_s"] / max(1, line["pipeline_documents_per_s"]), 1)
    return {
        "device": "cpu" if plan.device == "cpu" else torch.cuda.get_device_name(plan.device),
        "torch": torch.__version__,
        "precision": plan.precision,
        "roof_tflops": round(roof_flops / 1e12, 3),
        "host_tokenising_microseconds_a_document": round(tokenising, 1),
        "encoders": encoders,
    }


def plan_for(precision: str, seconds: float, *, smoke: bool) -> Plan | None:
    """What is measured here; None where there is no CUDA and it is not only to be seen that it runs."""
    if smoke:
        return Plan("cpu", "fp32", 0.0, 64, 64, 512, {MINILM: SMALL, BERT_BASE: SMALL})
    if not torch.cuda.is_available():
        return None
    return Plan("cuda:0", precision, seconds, 8_192, 8_192, None, SHAPES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["bf16", "fp16"], default="bf16")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each figure is measured")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    plan = plan_for(options.precision, options.seconds, smoke=options.smoke)
    if plan is None:
        print("no CUDA device here: nothing was measured (--smoke runs a hundredth of it on the CPU)", file=sys.stderr)
        return 1
    print(json.dumps(measure(plan), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
