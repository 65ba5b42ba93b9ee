"""The table of candidates of a fine-tune, on the console and in the report: the base beside all that was tried."""

from collections.abc import Callable

from hftraining.core.metrics import Unit
from hftraining.reports.format import estimate, number
from hftraining.runs.result import CandidateResult

CANDIDATES = {
    "base": "Base model as it is",
    "full": "All weights moved",
    "head": "The head alone moved",
    "lora": "A low-rank change",
    "scratch": "Trained from scratch",
    "ridge": "Ridge regression, same features",
    "nothing_changes": "Nothing changes",
}
# Key in data-metric, heading, text of a candidate.
COLUMNS: tuple[tuple[str, str, Callable[[CandidateResult], str]], ...] = (
    ("loss", "loss", lambda row: number(row.loss, Unit.LOSS)),
    ("loss_difference", "loss less base", lambda row: estimate(row.loss_difference, Unit.LOSS)),
    ("total_return", "return", lambda row: number(row.profit.get("total_return"), Unit.CHANGE)),
    ("sharpe_ratio", "Sharpe", lambda row: number(row.profit.get("sharpe_ratio"), Unit.RATIO)),
    ("difference", "Sharpe less base", lambda row: estimate(row.difference, Unit.RATIO)),
    ("p", "luck, p", lambda row: number(row.p, Unit.SCORE)),
    ("forgetting", "forgetting", lambda row: estimate(row.forgetting, Unit.LOSS)),
)
