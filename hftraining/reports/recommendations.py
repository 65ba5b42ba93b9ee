"""The candidates of a fine-tune in words, and the columns of their table on the console and in the report."""

from collections.abc import Callable

from hftraining.core.metrics import Unit
from hftraining.reports.format import estimate, number
from hftraining.runs.result import CandidateResult

CANDIDATES = {
    "base": "the base model as it is",
    "full": "fine-tuning all weights",
    "head": "fine-tuning the head",
    "lora": "fine-tuning a low-rank change",
    "scratch": "training from scratch",
    "ridge": "ridge regression",
    "nothing_changes": '"nothing changes"',
}
# Key in data-metric, heading, text of a candidate.
COLUMNS: tuple[tuple[str, str, Callable[[CandidateResult], str]], ...] = (
    ("total_return", "return", lambda row: number(row.profit.get("total_return"), Unit.CHANGE)),
    ("sharpe_ratio", "Sharpe", lambda row: number(row.profit.get("sharpe_ratio"), Unit.RATIO)),
    ("difference", "Sharpe less base", lambda row: estimate(row.difference, Unit.RATIO)),
    ("p", "luck, p", lambda row: number(row.p, Unit.SCORE)),
    ("loss", "loss", lambda row: number(row.loss, Unit.LOSS)),
    ("loss_difference", "loss less base", lambda row: estimate(row.loss_difference, Unit.LOSS)),
    ("forgetting", "forgetting", lambda row: estimate(row.forgetting, Unit.LOSS)),
)
