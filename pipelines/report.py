"""An evaluation in, one page out that shows it: no script, nothing fetched, light and dark."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pipelines.evaluate import Difference, Evaluation, differences
from pipelines.page import page

TEMPLATE: Final = "report.html.jinja"
_LESS_IS_BETTER: Final = {"calibration_error", "uncertain_share"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A difference as the page shows it; `verdict` is "better", "worse", or nothing."""

    name: str
    figure: str
    before: float
    now: float
    change: float
    verdict: str


def render(evaluation: Evaluation, before: Evaluation | None = None) -> str:
    """The page as HTML; with an evaluation from `before`, what has changed since."""
    compared = [] if before is None else [judged(one) for one in differences(before, evaluation)]
    return page(Path(__file__).with_name(TEMPLATE), evaluation=evaluation, before=before, compared=compared)


def judged(one: Difference) -> Judged:
    """The difference, and whether it is one to the better."""
    gained = -one.change if one.figure in _LESS_IS_BETTER else one.change
    return Judged(**asdict(one), change=one.change, verdict="better" if gained > 0 else "worse" if gained < 0 else "")
