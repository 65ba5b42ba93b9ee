"""RunRecord: the folder of one run, readable even when its process is killed at any moment."""

import functools
import itertools
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pandas as pd
import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import UserError
from hftraining.core.files import replacing, write_json_atomically, write_text_atomically
from hftraining.core.secret import MaskedFormatter
from hftraining.core.values import flatten, plain, without_nan
from hftraining.runs.board import Board
from hftraining.runs.result import RunResult, write_result

LOGGER = logging.getLogger("hftraining")
EQUITY_COLUMNS = ("window", "date", "equity", "buy_and_hold")
TRADE_COLUMNS = tuple(
    "window symbol side shares entry_date entry_price exit_date exit_price costs pnl exit_reason".split()
)
NULL_BAND_COLUMNS = ("window", "date", "q05", "q25", "q50", "q75", "q95")  # quantiles of equity, in currency
_SAFE_NAME = re.compile(r"[\w^=+@][\w^=+@,. -]{0,119}\Z")


class RecordError(UserError):
    """A run folder cannot be made or resumed: what, where, in one line."""


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a run, in order, with NaN for null; none without a file.

    Leaves out a last line that a kill cut short. Raises RecordError for any other line that is not a logged step.
    """
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = int(row["step"])
            rows.append({tag: math.nan if value is None else value for tag, value in row.items()} | {"step": step})
        except (ValueError, KeyError, TypeError):
            if number < len(lines):  # only the last piece, which no newline ends, may be cut short
                raise RecordError(f"{path}, line {number} is not a logged step: {line[:80]!r}") from None
    return rows


def read_manifest(folder: Path) -> dict[str, Any]:
    """What run.json of a run folder says."""
    found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return found


class RunRecord:
    """The folder of one run. Open it with `create` or `reopen`, and close it, or use it as a context manager."""

    def __init__(self, folder: Path, *, purge_step: int | None = None, seconds_before: float = 0.0) -> None:
        self.folder = folder
        self.last_step = -1
        self._purge_step = purge_step
        self._started = time.monotonic() - seconds_before
        self._metrics: IO[str] = open(folder / "metrics.jsonl", "a", encoding="utf-8")
        self._board: Any = None
        self._log = logging.FileHandler(folder / "train.log", encoding="utf-8")
        self._log.setFormatter(MaskedFormatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(self._log)
        if LOGGER.level == logging.NOTSET:  # the root's WARNING would keep the log empty
            LOGGER.setLevel(logging.INFO)

    @classmethod
    def create(
        cls,
        outputs: Path,
        kind: str,
        name: str,
        config: dict,
        config_diff: dict,
        manifest: dict,
        code_patch: bytes = b"",
        called: str | None = None,
    ) -> "RunRecord":
        """A new folder outputs/kind/name/called with config.yaml, config_diff.yaml and run.json in it.

        code_patch: the changes since the commit, kept as code.patch unless empty. called: see new_folder. Raises
        RecordError for a kind or name that is not a plain folder name, and where the folder cannot be made.
        """
        for what, text in (("kind", kind), ("name", name), ("folder", called or "by date")):
            if not _SAFE_NAME.match(text) or ".." in text or text[-1] in ". ":
                raise RecordError(f"{what}={text!r} is not a plain folder name")
        folder = new_folder(outputs / kind / name, called)
        write_text_atomically(folder / "config.yaml", _yaml(config))
        write_text_atomically(folder / "config_diff.yaml", _yaml(config_diff))
        if code_patch:
            with replacing(folder / "code.patch") as temporary:
                temporary.write_bytes(code_patch)
        write_json_atomically(folder / "run.json", {"kind": kind, "name": name} | manifest)
        return cls(folder)

    @classmethod
    def reopen(cls, folder: Path, step: int) -> "RunRecord":
        """Resume in the folder of an interrupted run, from its checkpoint at `step`.

        Drops what was logged after `step`, from metrics.jsonl and (by a purge mark) from TensorBoard; the clock
        continues from the last step kept. Raises RecordError for a folder that is not a run.
        """
        missing = [name for name in ("config.yaml", "run.json") if not (folder / name).is_file()]
        if missing:
            raise RecordError(f"{folder} is not a run: it has no {' and no '.join(missing)}")
        kept = [row for row in read_metrics(folder) if row["step"] <= step]
        write_text_atomically(folder / "metrics.jsonl", "".join(_line(row) for row in kept))
        record = cls(folder, purge_step=step + 1, seconds_before=kept[-1].get("seconds", 0.0) if kept else 0.0)
        record.last_step = int(kept[-1]["step"]) if kept else -1
        LOGGER.info("resumed from step %d", step)
        return record

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """What run.json says."""
        return read_manifest(self.folder)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, which may not exist yet."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The folder of the finished model, which may not exist yet."""
        return self.folder / "model"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl and the same values to TensorBoard, both flushed.

        Call it once a step, in rising order, with the step's losses and its probe together, and before saving the
        step's checkpoint: otherwise a kill between the two would lose the line for good.
        """
        assert step > self.last_step, f"step {step} was logged after step {self.last_step}"
        assert not {"step", "seconds"} & set(values), "step and seconds are written here"
        self.last_step = step
        numbers = {tag: plain(values[tag]) for tag in sorted(values)}
        seconds = round(time.monotonic() - self._started, 3)
        self._metrics.write(_line({"step": step} | numbers | {"seconds": seconds}))
        self._metrics.flush()
        self._tensorboard().scalars(step, numbers)

    def history(self) -> list[dict[str, float]]:
        """All logged steps, read back from metrics.jsonl; null as NaN."""
        return read_metrics(self.folder)

    def write_result(self, result: RunResult) -> None:
        """Write result.json, and the config beside the result as HParams in TensorBoard."""
        write_result(self.folder, result)
        config = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
        hparams = {key: v if isinstance(v, (bool, int, float, str)) else str(v) for key, v in flatten(config).items()}
        metrics = {"result/eval_loss": result.eval_loss, "result/deflated_sharpe": result.deflated_sharpe}
        if valid := result.periods.get("valid"):
            metrics["result/valid_p"] = valid.null.p if valid.null else None
        for name, period in result.periods.items():
            for metric in ("total_return", "sharpe_ratio", "max_drawdown"):
                metrics[f"result/{name}_{metric}"] = period.profit.get(metric)
        known = {tag: float(v) for tag, v in metrics.items() if v is not None and math.isfinite(v)}
        self._tensorboard().hparams(max(self.last_step, 0), hparams, known)

    def write_equity(self, frame: pd.DataFrame) -> None:
        """Write equity.parquet: one row a day; the column `window` names the period, valid or test."""
        self._write_parquet("equity.parquet", frame, EQUITY_COLUMNS)

    def write_trades(self, frame: pd.DataFrame) -> None:
        """Write trades.parquet: one row a trade, perhaps none."""
        self._write_parquet("trades.parquet", frame, TRADE_COLUMNS)

    def write_null_band(self, frame: pd.DataFrame) -> None:
        """Write null_band.parquet: one row a day, the fan of equity curves that luck alone makes."""
        self._write_parquet("null_band.parquet", frame, NULL_BAND_COLUMNS)

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        LOGGER.removeHandler(self._log)
        self._log.close()
        self._metrics.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tensorboard(self) -> Board:
        if self._board is None:
            self._board = Board(self.folder, self._purge_step)
        return self._board

    def _write_parquet(self, name: str, frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
        missing = [column for column in columns if column not in frame.columns]
        assert not missing, f"{name} lacks {missing}"
        with replacing(self.folder / name) as temporary:
            frame[list(columns)].to_parquet(temporary, index=False)


def new_folder(parent: Path, called: str | None = None) -> Path:
    """Make a folder in `parent`, called by date and time unless a name is given; a taken name gets _2 at its end.

    Raises RecordError where `parent` cannot be made.
    """
    called = called or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"output_dir: {parent} cannot be made ({error.strerror})") from error
    for number in itertools.count(1):
        folder = parent / (called if number == 1 else f"{called}_{number}")
        with suppress(FileExistsError):  # another run has it
            folder.mkdir()
            break
    return folder


def _yaml(values: dict) -> str:
    return yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(without_nan(dict(row)), allow_nan=False) + "\n"
