"""RunRecord: the folder of one run, readable even when its process is killed at any moment."""

import errno
import functools
import itertools
import json
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pandas as pd

from hftraining.core.errors import UserError
from hftraining.core.files import remove_left_over, replacing, sync, write_json_atomically, write_text_atomically
from hftraining.core.secret import MaskedFormatter
from hftraining.core.untrusted import MB, is_printable, is_there, parse_json, read_bytes, read_yaml, shown, yaml_text
from hftraining.core.values import flatten, plain, without_nan
from hftraining.runs.board import Board
from hftraining.runs.lock import FolderLock, is_in_use
from hftraining.runs.manifest import MANIFEST, MOST_COUNT, NAME, read_facts, refuse_partial
from hftraining.runs.result import RunResult, write_result

LOGGER = logging.getLogger("hftraining")
EQUITY_COLUMNS = ("window", "date", "equity", "buy_and_hold")
TRADE_COLUMNS = tuple(
    "window symbol side shares entry_date entry_price exit_date exit_price costs pnl exit_reason".split()
)
NULL_BAND_COLUMNS = ("window", "date", "q05", "q25", "q50", "q75", "q95")  # quantiles of equity, in currency
_BEGUN = ".begun-"  # what the folder of a run is called until it is whole
_BEGINNING = 60.0  # seconds: a new one may not be locked yet
DATED = "%Y-%m-%d_%H-%M-%S"  # the name of a run folder
METRICS = "metrics.jsonl"
# Of a logged step, since the run began; the second is of this process and all its threads.
CLOCKS = {"seconds": time.monotonic, "cpu_seconds": time.process_time}
METRICS_MOST, LINE_MOST = 512 * MB, MB // 16


class RecordError(UserError):
    """A run folder cannot be made or resumed: what, where, in one line."""


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a run, in order, with NaN for null; none without a file.

    Leaves out a last line that a kill cut short. Raises UserError for any other line that is not a logged step.
    """
    path = folder / METRICS
    lines = read_bytes(path, METRICS_MOST).split(b"\n") if is_there(path) else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_logged(line, f"{path}, line {number}"))
        except (ValueError, UserError):
            if number < len(lines):  # only the last piece, which no newline ends, may be cut short
                raise RecordError(f"{path}, line {number} is not a logged step: {shown(line)}") from None
    return rows


def _logged(line: bytes, name: str) -> dict[str, float]:
    """One line of metrics.jsonl. Raises ValueError or UserError."""
    row = parse_json(line.decode("utf-8"), name) if len(line) <= LINE_MOST else {}
    if not isinstance(row, dict):
        raise ValueError("no object")
    step = row.get("step")
    if type(step) is not int or not 0 <= step <= MOST_COUNT:
        raise ValueError("no step")
    if any(type(value) not in (int, float, type(None)) or not is_printable(tag) for tag, value in row.items()):
        raise ValueError("a value that is no number")
    return {tag: math.nan if value is None else value for tag, value in row.items()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What run.json of a run folder says: every field that a run needs is there, and every known one is sound.

    Raises UserError for a folder without one, and for one that does not fit the schema of runs/manifest.py.
    """
    facts = read_facts(folder)
    refuse_partial(facts, folder / MANIFEST)
    return facts


class RunRecord:
    """The folder of one run. Open it with `create` or `reopen`, and close it, or use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        lock: FolderLock,
        *,
        purge_step: int | None = None,
        before: Mapping[str, float] | None = None,
    ) -> None:
        """before: the clocks of the last step of a resumed run."""
        self.folder, self._lock = folder, lock
        self.last_step = -1
        self._purge_step = purge_step
        self._started = {name: clock() - (before or {}).get(name, 0.0) for name, clock in CLOCKS.items()}
        self._metrics: IO[str] = open(folder / "metrics.jsonl", "a", encoding="utf-8")
        self._board: Any = None
        self._log = _LogFile(folder / "train.log", encoding="utf-8")
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
        more: Callable[[Path], None] = lambda folder: None,
    ) -> "RunRecord":
        """A new folder outputs/kind/name/called with config.yaml, config_diff.yaml and run.json in it.

        It appears whole: a process that is killed on the way leaves no folder of a run. code_patch: the changes since
        the commit, kept as code.patch unless empty. called: the date and time unless given; a taken name gets _2 at
        its end. more: writes further files into it. Raises RecordError for a kind or name that is not a plain folder
        name, and where the folder cannot be made.
        """
        for what, text in (("kind", kind), ("name", name), ("folder", called or "by date")):
            if not NAME.match(text) or ".." in text or text[-1] in ". ":
                raise RecordError(f"{what}={text!r} is not a plain folder name")
        parent = outputs / kind / name
        _make_parent(parent)
        _remove_half_begun(parent)
        begun = parent / f"{_BEGUN}{secrets.token_hex(4)}"
        begun.mkdir()
        lock = FolderLock(begun)
        try:
            write_text_atomically(begun / "config.yaml", _yaml(config))
            write_text_atomically(begun / "config_diff.yaml", _yaml(config_diff))
            if code_patch:
                with replacing(begun / "code.patch") as temporary:
                    temporary.write_bytes(code_patch)
            write_json_atomically(begun / "run.json", {"kind": kind, "name": name} | manifest)
            more(begun)
            folder = _moved(begun, parent, called)
            sync(parent)
            return cls(folder, lock)
        except BaseException:
            lock.release()
            shutil.rmtree(begun, ignore_errors=True)
            raise

    @classmethod
    def reopen(cls, folder: Path, step: int, lock: FolderLock | None = None) -> "RunRecord":
        """Resume in the folder of an interrupted run, from its checkpoint at `step`.

        Drops what was logged after `step`, from metrics.jsonl and (by a purge mark) from TensorBoard; the clock
        continues from the last step kept. lock: of the folder, if it is held already. Raises RecordError for a folder
        that is not a run, and FolderInUse while another process writes there.
        """
        missing = [name for name in ("config.yaml", "run.json") if not (folder / name).is_file()]
        if missing:
            raise RecordError(f"{folder} is not a run: it has no {' and no '.join(missing)}")
        lock = lock or FolderLock(folder)
        remove_left_over(folder)
        kept = [row for row in read_metrics(folder) if row["step"] <= step]
        write_text_atomically(folder / "metrics.jsonl", "".join(_line(row) for row in kept))
        record = cls(folder, lock, purge_step=step + 1, before=kept[-1] if kept else None)
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

    def log(self, step: int, values: Mapping[str, float], clocks: Mapping[str, float] | None = None) -> None:
        """Append one line to metrics.jsonl and the same values to TensorBoard, both flushed.

        Call it once a step, in rising order, with the step's losses and its probe together, and before saving the
        step's checkpoint: otherwise a kill between the two would lose the line for good. clocks: by the names of
        CLOCKS, of a step that others have taken.
        """
        assert step > self.last_step, f"step {step} was logged after step {self.last_step}"
        assert not {"step", *CLOCKS} & set(values), "step and seconds are written here"
        self.last_step = step
        numbers = {tag: plain(values[tag]) for tag in sorted(values)}
        times = dict(clocks or {name: clock() - self._started[name] for name, clock in CLOCKS.items()})
        times = {name: round(seconds, 3) for name, seconds in times.items()}
        self._metrics.write(_line({"step": step} | numbers | times))
        self._metrics.flush()
        self._tensorboard().scalars(step, numbers)

    def history(self) -> list[dict[str, float]]:
        """All logged steps, read back from metrics.jsonl; null as NaN."""
        return read_metrics(self.folder)

    def write_result(self, result: RunResult) -> None:
        """Write the config beside the result as HParams in TensorBoard, then result.json, which ends the run."""
        config = read_yaml(self.folder / "config.yaml")
        hparams = {key: v if isinstance(v, (bool, int, float, str)) else str(v) for key, v in flatten(config).items()}
        metrics = {"result/eval_loss": result.eval_loss, "result/deflated_sharpe": result.deflated_sharpe}
        if valid := result.periods.get("valid"):
            metrics["result/valid_p"] = valid.null.p if valid.null else None
        for name, period in result.periods.items():
            for metric in ("total_return", "sharpe_ratio", "max_drawdown"):
                metrics[f"result/{name}_{metric}"] = period.profit.get(metric)
        known = {tag: float(v) for tag, v in metrics.items() if v is not None and math.isfinite(v)}
        self._tensorboard().hparams(max(self.last_step, 0), hparams, known)
        write_result(self.folder, result)
        self._log.is_needed = False

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
        """Close the files and let others into the folder, whatever fails on the way; a second call does nothing."""
        LOGGER.removeHandler(self._log)
        with ExitStack() as last_first:
            last_first.callback(self._lock.release)
            if self._board is not None:
                board, self._board = self._board, None
                last_first.callback(board.close)
            last_first.callback(self._metrics.close)
            last_first.callback(self._close_log)

    def _close_log(self) -> None:
        try:
            self._log.close()
        except OSError:
            if self._log.is_needed:
                raise

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


class _LogFile(logging.FileHandler):
    """train.log. What cannot be written, on a full disk say, ends the run, where logging would print a traceback.

    Once there is a result, nothing ends the run: the console shows the last lines, too.
    """

    is_needed = True

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by logging while it handles an exception of ours."""
        if self.is_needed:
            raise


def new_folder(parent: Path, called: str | None = None) -> Path:
    """Make a folder in `parent`, called by date and time unless a name is given; a taken name gets _2 at its end.

    Raises RecordError where `parent` cannot be made.
    """
    _make_parent(parent)
    for folder in _names(parent, called):
        with suppress(FileExistsError):  # another run has it
            folder.mkdir()
            return folder
    raise AssertionError("there is always a further name")


def _names(parent: Path, called: str | None) -> Iterator[Path]:
    called = called or datetime.now().strftime(DATED)
    return (parent / (called if number == 1 else f"{called}_{number}") for number in itertools.count(1))


def _make_parent(parent: Path) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"output_dir: {parent} cannot be made ({error.strerror})") from error


def _moved(begun: Path, parent: Path, called: str | None) -> Path:
    """Give a folder its name, unless another has it."""
    for folder in _names(parent, called):
        try:
            os.rename(begun, folder)  # which replaces an empty folder, but nothing else
            return folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
    raise AssertionError("there is always a further name")


def _remove_half_begun(parent: Path) -> None:
    """Remove what processes that were killed in `create` have left."""
    for begun in parent.glob(f"{_BEGUN}*"):
        with suppress(FileNotFoundError):  # it is whole by now, and has its name
            is_old = time.time() - begun.lstat().st_mtime > _BEGINNING
            if is_old and not begun.is_symlink() and not is_in_use(begun):
                shutil.rmtree(begun, ignore_errors=True)


def _yaml(values: dict) -> str:
    return yaml_text(plain(values))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(without_nan(dict(row)), allow_nan=False) + "\n"
