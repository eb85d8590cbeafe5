"""Documents a CPU-second of several engines with the same weights and the same texts, in one run, in turns, as JSON.

`python -m tests.benchmarks.encoder_engines [--peers-python peers/bin/python] [--documents N] [--rounds N]`

Every engine is a process with one thread. In each round all of them answer all texts, one after the other; the time is the CPU time
of the whole process, so that other load on the machine disturbs little, and ratios are taken within a round. Before, all must have
given the answers of the plain forward pass. Ours gives topic, sentiment and their probabilities from the texts; the others, but for
the pipelines, give sentence vectors. `--peers-python` is an interpreter with `tests/benchmarks/peers.txt`; without it only what the
project's own environment holds is measured. The matrix limit is what the linear layers of the same passes cost without anything
between them.
"""

import argparse
import asyncio
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

CHECKED = 48
LABELS = 23
LONGEST = 256
ALIKE = 0.9999
OURS, OUR_ENCODER, LIMIT = "ours", "ours, encoder alone", "matrix limit"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TRANSFORMERS_VERBOSITY": "error",
}

Vectors = list[list[float]]
Answer = Callable[[Sequence[str]], Vectors]
"""Texts to one vector a text: a sentence vector, or logits."""


# --- the engines, each in its own process --------------------------------------------------------


def ours(folder: Path) -> Answer:
    """Texts to predictions; the vector is the probabilities of topic and sentiment."""
    classifier = classifier_of(folder)
    from monitor.types import Passage

    def answer(texts: Sequence[str]) -> Vectors:
        predictions = classifier.classify(classifier.prepare([Passage(text) for text in texts]))
        return [[*found.topic_probabilities, *found.document.probabilities] for found in predictions]

    return answer


def classifier_of(folder: Path) -> Any:
    from monitor.classifier.checkpoint import load_checkpoint
    from monitor.classifier.load import checkpoint_folder
    from monitor.classifier.two_head import TwoHeadClassifier
    from monitor.config import ModelSettings

    del folder
    checkpoint = load_checkpoint(checkpoint_folder(ModelSettings()))
    return TwoHeadClassifier(replace(checkpoint, manifest=replace(checkpoint.manifest, max_tokens=LONGEST)), "cpu")


def our_encoder(folder: Path) -> Answer:
    """From texts to sentence vectors: tokenised, packed, encoded, without the heads and the answers."""
    from monitor.classifier.fused_encoder import FusedEncoder
    from monitor.classifier.packing import mean_per_segment
    from monitor.classifier.passes import Passes
    from monitor.types import Passage

    classifier = classifier_of(folder)
    encoder = FusedEncoder(classifier._model.encoder)
    passes = Passes("cpu")

    def answer(texts: Sequence[str]) -> Vectors:
        found: dict[int, list[float]] = {}
        rows = classifier.prepare([Passage(text) for text in texts])
        for answered in passes.run(rows, lambda packed: [mean_per_segment(encoder(packed), packed.lengths)]):
            by_place = dict(zip(answered.packed.order, answered.tensors[0].tolist(), strict=True))
            found.update((place, by_place[row]) for row, place in enumerate(answered.places))
        return [found[place] for place in range(len(texts))]

    return answer


def matrix_limit(folder: Path) -> Answer:
    """The linear layers of the passes that ours makes of these texts, and nothing else; the vector means nothing."""
    import torch
    from torch.nn import functional

    from monitor.classifier.fused_encoder import FusedEncoder
    from monitor.classifier.passes import _PASS_TOKENS, passes
    from monitor.types import Passage

    classifier = classifier_of(folder)
    layers = FusedEncoder(classifier._model.encoder)._layers
    matrices = [
        (matrix.weight, matrix.bias)
        for layer in layers
        for matrix in (layer.queries_keys_values, layer.attended, layer.widened, layer.narrowed)
    ]
    weighed: dict[tuple[str, ...], list[int]] = {}
    inputs = {width: torch.randn(2 * _PASS_TOKENS["cpu"], width) for width in {weight.shape[1] for weight, _ in matrices}}

    def answer(texts: Sequence[str]) -> Vectors:
        lengths = weighed.get(tuple(texts))
        if lengths is None:
            lengths = weighed[tuple(texts)] = [row.tokens for row in classifier.prepare([Passage(text) for text in texts])]
        with torch.inference_mode():
            for places in passes(lengths, _PASS_TOKENS["cpu"]):
                tokens = sum(lengths[place] for place in places)
                for weight, bias in matrices:
                    functional.linear(inputs[weight.shape[1]][:tokens], weight, bias)
        return [[0.0]] * len(texts)

    return answer


def pipeline_of(batch: int) -> Callable[[Path], Answer]:
    """The text-classification pipeline of transformers on the same encoder; the vector is its logits."""

    def load(folder: Path) -> Answer:
        from transformers import pipeline

        classify = pipeline("text-classification", model=str(folder / "classifier"), device="cpu", batch_size=batch, top_k=None)

        def answer(texts: Sequence[str]) -> Vectors:
            found = classify(list(texts), function_to_apply="none", truncation=True, max_length=LONGEST)
            return [[item["score"] for item in sorted(row, key=lambda item: int(item["label"][6:]))] for row in found]

        return answer

    return load


def sentence_transformers(folder: Path) -> Answer:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "encoder"), device="cpu")
    model.max_seq_length = LONGEST
    return lambda texts: [vector.tolist() for vector in model.encode(list(texts), batch_size=32, show_progress_bar=False)]


def infinity(folder: Path) -> Answer:
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    loop = asyncio.new_event_loop()
    wanted = {"engine": "torch", "device": "cpu", "batch_size": 32, "bettertransformer": True, "model_warmup": False}
    engine = AsyncEmbeddingEngine.from_args(EngineArgs(model_name_or_path=str(folder / "encoder"), **wanted))
    loop.run_until_complete(engine.astart())

    def answer(texts: Sequence[str]) -> Vectors:
        vectors, _ = loop.run_until_complete(engine.embed(sentences=list(texts)))
        return [vector.tolist() for vector in vectors]

    return answer


def sorted_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places by falling length, as many as fit into `budget` tokens with their padding."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if group and (len(group) + 1) * lengths[group[0]] > budget:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def budgeted(folder: Path, budget: int, run: Callable[[Any, Any], Any]) -> Answer:
    """`run` (token ids and mask, both (rows, longest), to states) over batches by length, then the mean of real tokens."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "encoder" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)

    def answer(texts: Sequence[str]) -> Vectors:
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        found: dict[int, list[float]] = {}
        for places in sorted_batches([len(row) for row in rows], budget):
            ids = np.zeros((len(places), len(rows[places[0]])), dtype=np.int64)
            mask = np.zeros_like(ids)
            for number, place in enumerate(places):
                ids[number, : len(rows[place])] = rows[place]
                mask[number, : len(rows[place])] = 1
            states = run(ids, mask)
            vectors = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            found.update(zip(places, vectors.tolist(), strict=True))
        return [found[place] for place in range(len(texts))]

    return answer


def exported(folder: Path) -> Path:
    """The encoder as an ONNX graph with free rows and columns."""
    import torch
    from transformers import AutoModel

    path = folder / f"encoder-{os.getpid()}.onnx"
    model = AutoModel.from_pretrained(str(folder / "encoder"), attn_implementation="eager").eval()
    free = {0: "rows", 1: "columns"}
    torch.onnx.export(
        model,
        (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["states", "pooled"],
        dynamic_axes={"input_ids": free, "attention_mask": free, "states": free},
        opset_version=17,
        dynamo=False,
    )
    return path


def onnxruntime_of(budget: int) -> Callable[[Path], Answer]:
    """ONNX Runtime on the graph as its own optimiser fuses it."""

    def load(folder: Path) -> Answer:
        import onnxruntime
        from onnxruntime.transformers import optimizer

        config = json.loads((folder / "encoder" / "config.json").read_text(encoding="utf-8"))
        graph = exported(folder)
        fused = optimizer.optimize_model(
            str(graph), "bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"], opt_level=1
        )
        fused.save_model_to_file(str(graph))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        return budgeted(folder, budget, lambda ids, mask: session.run(["states"], {"input_ids": ids, "attention_mask": mask})[0])

    return load


def openvino_of(budget: int) -> Callable[[Path], Answer]:
    def load(folder: Path) -> Answer:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(str(exported(folder)), "CPU", settings).create_infer_request()
        return budgeted(
            folder, budget, lambda ids, mask: request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)["states"]
        )

    return load


@dataclass(frozen=True, slots=True)
class Engine:
    """`load` makes it in its own process; `checked` is what its vectors must equal; `package` is named with its version."""

    load: Callable[[Path], Answer]
    checked: str
    package: str
    peer: bool = False


BUDGETS = (1_024, 2_048)
ENGINES: dict[str, Engine] = {
    OURS: Engine(ours, "predictions", "torch"),
    OUR_ENCODER: Engine(our_encoder, "sentences", "torch"),
    LIMIT: Engine(matrix_limit, "", "torch"),
    "pipeline(1)": Engine(pipeline_of(1), "logits", "transformers"),
    "pipeline(32)": Engine(pipeline_of(32), "logits", "transformers"),
    "sentence-transformers": Engine(sentence_transformers, "sentences", "sentence-transformers"),
    "infinity": Engine(infinity, "sentences", "infinity-emb", peer=True),
    **{f"onnxruntime({budget})": Engine(onnxruntime_of(budget), "sentences", "onnxruntime", peer=True) for budget in BUDGETS},
    **{f"openvino({budget})": Engine(openvino_of(budget), "sentences", "openvino", peer=True) for budget in BUDGETS},
}


def work(name: str, folder: Path) -> None:
    """A process of one engine: answers `check` and `round` on standard input with one line of JSON each."""
    warnings.simplefilter("ignore")
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print where they like
    import torch

    torch.set_num_threads(1)
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    answer = ENGINES[name].load(folder)
    answer(texts[:CHECKED])
    print(json.dumps({"version": importlib.metadata.version(ENGINES[name].package)}), file=replies, flush=True)
    for line in sys.stdin:
        began_s = time.process_time()
        vectors = answer(texts if line.strip() == "round" else texts[:CHECKED])
        spent_s = time.process_time() - began_s
        print(json.dumps({"cpu_s": spent_s} if line.strip() == "round" else vectors), file=replies, flush=True)
    os._exit(0)  # some engines keep threads that end with nothing


# --- the run ---------------------------------------------------------------------------------------


class Worker:
    """The process of an engine, asked over its pipes."""

    def __init__(self, name: str, folder: Path, python: str) -> None:
        command = [python, str(Path(__file__).resolve()), "--work", name, "--folder", str(folder)]
        root = str(Path(__file__).resolve().parent.parent.parent)
        self._log = (folder / f"{name}.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": root},
        )
        self.version = self._reply()["version"]

    def ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the engine ended: {self._log.read()[-3_000:]}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()


def invented(number: int, words: Sequence[str], seed: int = 7) -> list[str]:
    """Texts of single-token words: 75 % of 12 to 25 tokens, 15 % of 30 to 80, 10 % of 128 to 256, the special two included."""
    chance = Random(seed)
    kinds = [(12, 25)] * 15 + [(30, 80)] * 3 + [(128, LONGEST)] * 2
    lengths = [chance.randint(*kinds[place % len(kinds)]) for place in range(number)]
    chance.shuffle(lengths)
    return [" ".join(chance.choices(words, k=length - 2)) for length in lengths]


def write_models(folder: Path) -> list[str]:
    """The shipped encoder with its adapter merged, as the peers read it; gives its whole words."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertForSequenceClassification

    from monitor.classifier.base_encoder import BASE_NAME, find_base

    torch.set_num_threads(1)
    base = find_base(None, BASE_NAME)
    encoder = classifier_of(folder)._model.encoder
    encoder.save_pretrained(folder / "encoder")
    torch.manual_seed(1)
    classifier = BertForSequenceClassification(type(encoder.config)(**{**encoder.config.to_dict(), "num_labels": LABELS}))
    classifier.bert.load_state_dict(encoder.state_dict(), strict=False)
    classifier.save_pretrained(folder / "classifier")
    for path in base.iterdir():
        if path.is_file() and path.name not in {"config.json", "model.safetensors"}:
            for name in ("encoder", "classifier"):
                shutil.copy(path, folder / name / path.name)
    # The form of sentence-transformers: the encoder, then the mean of its states.
    pooling = {"word_embedding_dimension": encoder.config.hidden_size, "pooling_mode_mean_tokens": True}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "encoder" / "1_Pooling").mkdir()
    (folder / "encoder" / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (folder / "encoder" / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    vocabulary = Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab()
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)


def references(folder: Path, texts: Sequence[str]) -> dict[str, Vectors]:
    """What the plain forward pass of transformers says of single texts, without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder / "encoder"))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder / "classifier")).eval()
    classifier = classifier_of(folder)
    found: dict[str, Vectors] = {"sentences": [], "logits": [], "predictions": []}
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST)
        with torch.inference_mode():
            row = model.bert(**inputs).last_hidden_state[0].mean(0)
            heads = classifier._model
            calibration = classifier._checkpoint.manifest.calibration
            topic = torch.softmax(heads.topic_head(row) / calibration.topic.temperature, 0)
            sentiment = torch.softmax(heads.sentiment_head(torch.cat([row, row])) / calibration.sentiment.temperature, 0)
            found["logits"].append(model(**inputs).logits[0].tolist())
        found["sentences"].append(row.tolist())
        found["predictions"].append([*topic.tolist(), *sentiment.tolist()])
    return found


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5


def measure(documents: int, rounds: int, peers_python: str | None, wanted: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = invented(documents, write_models(folder))
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        expected = references(folder, texts[:CHECKED])
        chosen = {key: engine for key, engine in ENGINES.items() if key in wanted and (peers_python or not engine.peer)}
        workers = {
            key: Worker(key, folder, peers_python if engine.peer and peers_python else sys.executable)
            for key, engine in chosen.items()
        }
        alike = {
            key: min(map(cosine, workers[key].ask("check"), expected[engine.checked]))
            for key, engine in chosen.items()
            if engine.checked
        }
        differing = [key for key, value in alike.items() if value < ALIKE]
        if differing:
            raise SystemExit(f"not the same answers: {', '.join(f'{key} (cosine {alike[key]:.6f})' for key in differing)}")
        seconds: dict[str, list[float]] = {key: [] for key in workers}
        for number in range(rounds):
            for key, worker in workers.items():
                seconds[key].append(worker.ask("round")["cpu_s"])
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        versions = {key: f"{chosen[key].package} {worker.version}" for key, worker in workers.items()}
        for worker in workers.values():
            worker.close()
    tokens = sum(len(text.split()) + 2 for text in texts)
    return {
        "machine": platform.processor() or platform.machine(),
        "documents": documents,
        "mean_tokens": round(tokens / documents, 1),
        "rounds": rounds,
        "engines": {
            key: {
                "documents_per_cpu_s": round(statistics.median(documents / spent for spent in seconds[key]), 1),
                "ours_is_times": ratio(seconds[key], seconds[OURS]),
                "package": versions[key],
                **({"smallest_cosine": round(alike[key], 7)} if key in alike else {}),
            }
            for key in workers
        },
        "share_of_matrix_limit": {
            key: ratio(seconds[LIMIT], seconds[key])
            for key in ("ours", "ours, encoder alone")
            if key in seconds and LIMIT in seconds
        },
    }


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median over the rounds of one time as a multiple of the other."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 3)


def show(found: dict[str, Any]) -> None:
    print(f"{'engine':24}{'documents/CPU-s':>16}{'ours is times':>15}  package", file=sys.stderr)
    for name, line in sorted(found["engines"].items(), key=lambda item: -item[1]["documents_per_cpu_s"]):
        print(f"{name:24}{line['documents_per_cpu_s']:16.1f}{line['ours_is_times']:15.2f}  {line['package']}", file=sys.stderr)
    for name, share in found["share_of_matrix_limit"].items():
        print(f"{name}: {share:.1%} of the matrix limit", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-python")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), help="only these; ours is always among them")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder)
    else:
        os.environ.update(ENVIRONMENT)
        figures = measure(options.documents, options.rounds, options.peers_python, list(itertools.chain([OURS], options.engines)))
        show(figures)
        print(json.dumps(figures, indent=1))
