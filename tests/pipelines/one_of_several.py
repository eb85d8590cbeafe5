"""One process of several: trains a tiny model in some ways, whole and stopped, and tells what came out for its rank."""

import contextlib
import hashlib
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console

from monitor.classifier.tokens import load_tokenizer
from pipelines.corpus import Example
from pipelines.finetune import finetune
from pipelines.learner import build_model
from pipelines.recipe import Recipe
from pipelines.training import Training, learned, train
from tests.pipelines.invented import TOPIC_NAMES, examples, invented_corpus

# Texts of one length, an even number of batches: both processes take half of them. Some batches have no entity at all.
TRAIN = [
    *examples(24, seed=1),
    *(Example(f"savings of the bank {number}", "x", topic=TOPIC_NAMES[number % 3]) for number in range(8)),
]
WAYS = {
    "lora": {"average_decay": 0.9},
    "consistency": {"consistency": 1.0, "accumulation": 2},
    "fgm": {"method": "full", "learning_rate": 1e-3, "adversary": "fgm", "adversary_size": 0.2},
    "awp": {"adversary": "awp", "adversary_size": 0.02},
}


class Killed(Exception):
    """The end of both processes, in the middle of a run."""


def digest(model) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(learned(model).items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def main(base: Path, output: Path) -> None:
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    assert accelerator.num_processes == 2
    tokenizer = load_tokenizer(base)
    told = {}
    for way, changes in WAYS.items():

        def run(folder, killed_in=None, way=way, changes=changes):
            recipe = Recipe(**({"epochs": 2, "rank": 2, "batch_tokens": 48, "learning_rate": 1e-2} | changes))
            torch.manual_seed(1)
            model = build_model(base, 3, recipe, steps=10)
            validated = []

            def validate(_):
                validated.append(True)
                if len(validated) == killed_in:
                    raise Killed
                return {"all": 0.5}

            training = Training(recipe, 1, TOPIC_NAMES, tokenizer, accelerator)
            finished = train(model, TRAIN, training=training, validate=validate, folder=output / folder, inputs={"way": way})
            return model, finished

        model, finished = run(f"{way}-whole")
        with contextlib.suppress(Killed):
            run(f"{way}-broken", killed_in=2)
        resumed, _ = run(f"{way}-broken")
        told[way] = {
            "weights": digest(model),
            "resumed": digest(resumed),
            "losses": [epoch.loss for epoch, _ in finished],
        }
    recipe = Recipe(epochs=1, rank=2, batch_tokens=48)
    done = finetune(
        invented_corpus(), recipe, seed=1, output=output / "run", base=base, base_name="invented/tiny", console=Console(quiet=True)
    )
    told["finetune"] = {"metrics": done.manifest.metrics}
    (output / f"rank-{rank}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
