"""Which days a model has seen: those it was trained on, those that chose its step, and its test days."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from hfinference.trained import TrainedModel
from hftraining.core.errors import UserError
from hftraining.core.values import printable
from hftraining.model.ensemble import Ensemble, members_of
from hftraining.runs.result import read_result

SLACK = np.timedelta64(7, "D")  # a start or end may fall on a weekend or holiday just outside the bars


@dataclass(frozen=True)
class SeenDays:
    """ISO days of a model, of all members of an ensemble together. None where they are not known.

    train: the first and last training day. chosen_from: the first day that no member was trained on. test_first: the
    first test day of any member. own: the training days of the first member, whose baselines learn on them.
    """

    train: tuple[str, str] | None = None
    chosen_from: str | None = None
    test_first: str | None = None
    own: tuple[str, str] | None = None

    @classmethod
    def of(cls, model: TrainedModel) -> "SeenDays":
        """Those that the model folder names."""
        known = [member.days for member in members_of(model.predictor)]
        if not all(days.keys() >= {"train", "valid", "test"} for days in known):
            return cls()
        train = min(days["train"][0] for days in known), max(days["train"][1] for days in known)
        valid, test = max(days["valid"][0] for days in known), min(days["test"][0] for days in known)
        return cls(train, valid, test, known[0]["train"])

    def check(self, sessions_T: np.ndarray, rows: slice, allowed: bool) -> str:
        """A sentence where the model was trained on some of these days, empty where on none.

        The labels of the last training days reach up to the first validation day, so these days count, too. Raises
        UserError unless that is allowed, and for bars that end before the training does.
        """
        days_T = sessions_T[rows]
        if self.train is None or self.chosen_from is None:
            if not allowed:
                raise UserError(
                    "the model does not say which days it was trained on: --in-sample goes on, and marks what it gives"
                )
            return "in sample, perhaps: the model does not say which days it was trained on"
        if str(sessions_T[-1]) <= self.train[1] and not allowed:
            raise UserError(
                f"these bars end on {sessions_T[-1]}, and the model was trained on days until {self.train[1]}: give "
                "bars that go on after that"
            )
        count = int((days_T < np.datetime64(self.chosen_from)).sum())
        if not count:
            return ""
        said = f"the model was trained on days from {self.train[0]} to {self.train[1]}, and its labels reach up to "
        if not allowed:
            raise UserError(
                f"{said}{self.chosen_from}: start on {self.chosen_from} or later, or say --in-sample, and the page is "
                "marked"
            )
        return f"in sample: {said}{self.chosen_from}, and {count:,} of these {len(days_T):,} days are among them"

    def notes(self, sessions_T: np.ndarray, rows: slice) -> list[str]:
        """What a reader has to know of these days, one sentence each."""
        days_T = sessions_T[rows]
        if self.chosen_from is None or self.test_first is None:
            return []
        chosen = (days_T >= np.datetime64(self.chosen_from)) & (days_T < np.datetime64(self.test_first))
        if not chosen.any():
            return []
        return [
            f"{int(chosen.sum()):,} of these days, before {self.test_first}, are validation days of the model, which "
            "chose what was kept: profits on them are flattered"
        ]

    def training_rows(self, sessions_T: np.ndarray) -> slice:
        """The rows of the training days of the first member; empty where there are none."""
        if self.own is None:
            return slice(0, 0)
        first, last = (np.datetime64(day) for day in self.own)
        return slice(int(np.searchsorted(sessions_T, first)), int(np.searchsorted(sessions_T, last, side="right")))


def notes_of_walk(model: TrainedModel) -> list[str]:
    """What a reader has to know of a walk-forward's model: a sentence, none for what was trained once."""
    every = _walks(model)
    if not every:
        return []
    until = f", trained until {model.days['train'][1]}" if "train" in model.days else ""
    return [
        f"the run was trained anew every {every:,} sessions, and this is the model of its last fold alone{until}: what "
        "it earns is not what the run was scored by"
    ]


def first_test_day(model: TrainedModel) -> str | None:
    """The first test day of a run, ISO, from which on a look is an opening; None where it is not known.

    The model of a walk-forward knows the test days of its last fold, and those of the run begin with an earlier one.
    """
    own = SeenDays.of(model).test_first
    result = read_result(model.folder) if own and _walks(model) else None
    folds = [fold.first for fold in result.folds or [] if fold.period == "test" and fold.first] if result else []
    return min([own, *folds]) if own else None


def _walks(model: TrainedModel) -> int:
    """After how many sessions the run was trained anew; 0 for what was trained once, and for several runs as one."""
    return 0 if model.config is None or isinstance(model.predictor, Ensemble) else model.config.walk_forward.every


def rows_between(sessions_T: np.ndarray, start: str | None, end: str | None, least: int) -> slice:
    """The rows of the sessions from start to end, both included; None: all there are on that side.

    Raises UserError, in one line, for what is no day, for days outside the bars, and for fewer than `least` sessions.
    """
    first, last = sessions_T[0], sessions_T[-1]
    low = first if start is None else _day("start", start)
    high = last if end is None else _day("end", end)
    if start and end and low > high:
        raise UserError(f"--start {low} is after --end {high}")
    if low < first - SLACK or low > last or high > last + SLACK or high < first:
        name, day = ("--start", low) if low < first - SLACK or low > last else ("--end", high)
        raise UserError(f"{name} {day} lies outside the bars, which go from {first} to {last}")
    rows = slice(int(np.searchsorted(sessions_T, low)), int(np.searchsorted(sessions_T, high, side="right")))
    count = rows.stop - rows.start
    if count < least:
        what = "no trading day lies" if not count else f"only {count} trading day{'s' if count > 1 else ''} lie"
        raise UserError(f"{what} from {low} to {high}: give at least {least}")
    return rows


def row_of(sessions_T: np.ndarray, text: str | None, name: str = "date", side: str = "left") -> int:
    """The row of the last session on or before a day; None: of the last session there is.

    side: right takes the first session on or after it. Raises UserError, in one line, for a day outside the bars.
    """
    if text is None:
        return len(sessions_T) - 1
    day = _day(name, text)
    if not sessions_T[0] <= day <= sessions_T[-1] + (SLACK if side == "left" else 0):
        raise UserError(f"--{name} {day} lies outside the bars, which go from {sessions_T[0]} to {sessions_T[-1]}")
    at = int(np.searchsorted(sessions_T, day))
    is_session = at < len(sessions_T) and sessions_T[at] == day
    return at if is_session or side == "right" else at - 1


def _day(name: str, text: str) -> np.datetime64:
    try:
        return np.datetime64(date.fromisoformat(text), "D")
    except (TypeError, ValueError):
        raise UserError(f"--{name} {printable(str(text)[:60])} is not a day such as 2019-01-31") from None
