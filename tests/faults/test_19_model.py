"""Family 19: the model is exchanged under the running process, or never answers, or the accelerator is not there."""

import shutil
import subprocess
import sys

import pytest

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.store.engine import open_engine
from tests.end_to_end.processes import RUNNING, until
from tests.end_to_end.stream import stream
from tests.fakes import FakeClassifier
from tests.faults.tailing import append, conservation, running, until_placed
from tests.monitor.classifier.tiny import write_base, write_tiny_checkpoint

EXCHANGE = """
import sys
from pathlib import Path

sys.path.insert(0, ".")
from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.types import Passage

passages = [Passage(f"halden falls {word} rumour of the bank") for word in ("profit", "loss", "queue", "gain")]


def overwritten(path):
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


def truncated(path):
    with path.open("r+b") as file:
        file.truncate(0)


for exchange in (overwritten, truncated, Path.unlink):
    base, checkpoint = Path(sys.argv[1], exchange.__name__, "base"), Path(sys.argv[1], exchange.__name__, "checkpoint")
    classifier = TwoHeadClassifier(load_checkpoint(checkpoint, base), "cpu")
    before, version = classifier.classify(classifier.prepare(passages)), classifier.version
    for path in [*base.iterdir(), *checkpoint.iterdir()]:
        exchange(path)
    assert classifier.classify(classifier.prepare(passages)) == before, f"{exchange.__name__}: other answers"
    assert classifier.version == version
"""


@pytest.mark.soak
def test_files_that_are_exchanged_while_it_runs_change_no_answer(tmp_path):
    base = write_base(tmp_path / "base")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", base)
    for name in ("overwritten", "truncated", "unlink"):
        shutil.copytree(base, tmp_path / name / "base")
        shutil.copytree(checkpoint, tmp_path / name / "checkpoint")
    script = tmp_path / "exchange.py"
    script.write_text(EXCHANGE, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr[-2_000:]}"


def test_without_an_accelerator_it_runs_on_the_cpu_and_says_so(tmp_path):
    base = write_base(tmp_path / "base")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", base)
    classifier = TwoHeadClassifier(load_checkpoint(checkpoint, base), "cpu")
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with running(tmp_path, engine, classifier=classifier) as daemon:
        labels = {"device": "cpu", "precision": "fp32", "encoder": "packed"}
        assert daemon.registry.get_sample_value("bellwether_encoder_info", labels) == 1
    engine.dispose()


HANGING = """
import sys, threading
from pathlib import Path
sys.path.insert(0, ".")
import monitor.daemon
from monitor.store.engine import open_engine
from tests.fakes import FakeClassifier
from tests.faults.tailing import running

class Hanging(FakeClassifier):
    def classify(self, prepared):
        threading.Event().wait()

folder = Path(sys.argv[1])
monitor.daemon.STALL_AFTER_S = 2.0
with running(folder, open_engine(f"sqlite:///{folder / 'store.db'}"), classifier=Hanging()):
    threading.Event().wait()
"""


@pytest.mark.soak
@pytest.mark.parametrize(
    "waiting",
    [1, 300],
)
def test_a_model_that_never_answers_ends_the_process_and_the_next_one_counts_everything(tmp_path, waiting):
    lines = list(stream(waiting))
    append(tmp_path, [line.value for line in lines])
    script = tmp_path / "hanging.py"
    script.write_text(HANGING, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    RUNNING.append(process)
    until((tmp_path / "store.db").exists, 120, "a start")
    assert process.wait(40) == 70
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    (tmp_path / "bellwether.log").unlink()
    with running(tmp_path, engine, classifier=FakeClassifier()):
        until_placed(engine, len(lines))
    assert conservation(engine, tmp_path, lines) == []
    engine.dispose()
