"""Run folders read back: what a folder holds, and which folders below a path are runs."""

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hftraining.core.errors import UserError
from hftraining.core.untrusted import is_there, read_yaml, refuse_links, shown
from hftraining.runs.earlier import in_todays_fields
from hftraining.runs.frames import VALUE_MOST, read_table
from hftraining.runs.manifest import MANIFEST, read_facts
from hftraining.runs.record import read_metrics
from hftraining.runs.result import RunResult, read_result

CANDIDATES_FOLDER = "candidates"  # of what a fine-tune tried, within its own folder
FOLDS_FOLDER = "folds"  # of what a walk-forward trained, within its own folder
MEMBERS_FOLDER = "members"  # of what a run with training.seeds trained, within its own folder
GROUPS = ("model", "stocks", "training", "profit_tracker", "objective", "evidence", "walk_forward")
# The kinds of folders of what is judged outside a training, and what the words for one are.
JUDGED = {"backtests": "a backtest", "evaluations": "an evaluation", "ensembles": "an ensemble"}
WALK_MOST = 2_000_000  # files and folders below a folder that is searched for runs


@dataclass
class RunFolder:
    """What a folder holds; empty or None where an interrupted run has not written a file yet.

    history: the logged steps, null as NaN. RunRecord.write_* says which columns the frames have.
    """

    path: Path
    config: dict[str, Any]
    config_diff: dict[str, Any]
    manifest: dict[str, Any]
    history: list[dict[str, float]]
    result: RunResult | None  # None: the run is not finished
    equity: pd.DataFrame | None
    trades: pd.DataFrame | None
    null_band: pd.DataFrame | None

    @property
    def initial_capital(self) -> float | None:
        """In currency, from the config, else the first value of the curve; None without either."""
        configured = (self.config.get("profit_tracker") or {}).get("initial_capital")
        if configured is None and self.equity is not None and len(self.equity):
            return float(self.equity["equity"].iloc[0])
        return None if configured is None else float(configured)

    @property
    def name(self) -> str:
        """The name of the run in its outputs folder; empty where the manifest has none."""
        return str(self.manifest.get("name") or "")

    @property
    def signature(self) -> str:
        """See identity.signature; empty where the manifest has none."""
        return str(self.manifest.get("signature") or "")

    @property
    def data(self) -> dict[str, Any]:
        """From the manifest: fingerprint, source, symbols, first and last session, snapshot."""
        return self.manifest.get("data") or {}

    @property
    def code(self) -> dict[str, Any]:
        """From the manifest: commit, dirty, digest, patch."""
        return self.manifest.get("code") or {}

    @property
    def judged(self) -> str:
        """What it is in words, where it was judged outside a training; empty for a run."""
        return JUDGED.get(str(self.manifest.get("kind")), "")

    @property
    def outputs(self) -> Path | None:
        """The outputs folder around outputs/kind/name/date_time; None once the run was moved elsewhere."""
        return outputs_of(self.path, self.manifest)


def outputs_of(folder: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The outputs folder around outputs/kind/name/date_time; None where a run does not lie so."""
    place = folder.resolve()
    return place.parents[2] if place.parts[-3:-1] == (manifest.get("kind"), manifest.get("name")) else None


def read_run(folder: Path) -> RunFolder:
    """All files of a run, finished or interrupted, as data: what is read here is sound, or refused.

    Raises UserError for a folder that is not a run, that is damaged, or that holds links.
    """
    if not is_there(folder / MANIFEST):
        raise UserError(f"{folder} is not a run: it has no {MANIFEST}")
    refuse_links(folder)
    return RunFolder(
        path=folder,
        config=in_todays_fields(_config(folder / "config.yaml")),
        config_diff=read_config_diff(folder),
        manifest=read_facts(folder),
        history=read_metrics(folder),
        result=read_result(folder),
        equity=read_table(folder, "equity.parquet"),
        trades=read_table(folder, "trades.parquet"),
        null_band=read_table(folder, "null_band.parquet"),
    )


def is_member(folder: Path) -> bool:
    """Whether a run is a member of the run whose folder it lies in."""
    place = folder.resolve()
    return place.parent.name == MEMBERS_FOLDER and is_there(place.parents[1] / MANIFEST)


def read_config_diff(folder: Path) -> dict[str, Any]:
    """What differed from the defaults when a run began, by dotted name. Empty without the file.

    Raises UserError for a damaged one.
    """
    path = folder / "config_diff.yaml"
    values = read_yaml(path) if is_there(path) else {}
    if wrong := [name for name, value in values.items() if isinstance(value, dict)]:
        raise UserError(f"{path} is damaged ({shown(wrong[0])} is a group, not a field)")
    return values


def runs_in(parent: Path) -> list[Path]:
    """The run folders in a folder, by name; none of those that are not whole yet."""
    return sorted(path.parent for path in parent.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))


def find_runs(places: Sequence[str | Path]) -> list[Path]:
    """Run folders, each once, in the order of the places: run folders, patterns, or folders that hold runs.

    Runs below one folder are sorted by name; no link within it is followed. Raises UserError for a place without a run.
    """
    found: dict[Path, Path] = {}
    for place in places:
        matches = [Path(place)]
        if not matches[0].exists() and glob.has_magic(str(place)):
            matches = _matches(str(place))
        runs = [run for match in matches for run in _runs_below(match)]
        if not runs:
            there = bool(matches) and matches[0].exists()
            what = f"holds no run: no folder in it has a {MANIFEST}" if there else "does not exist"
            raise UserError(f"{place} {what}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _matches(pattern: str) -> list[Path]:
    """What a pattern matches. ** goes through no link, of which a stranger's folder may make a ring."""
    whole = Path(pattern)
    parts = whole.parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    found = Path(*parts[:first]).glob(str(Path(*parts[first:])))
    return sorted(path for path in found if not path.name.startswith("."))


def _runs_below(place: Path) -> list[Path]:
    if is_there(place / MANIFEST):
        return [place]
    found, count = [], 0
    for path, folders, files in os.walk(place):  # which follows no link to a folder
        count += len(folders) + len(files)
        if count > WALK_MOST:
            raise UserError(f"{place} holds more than {WALK_MOST:,} files: name the folders of the runs")
        inner = FOLDS_FOLDER if MANIFEST in files else ""  # parts of one run, whose result is that of them all
        folders[:] = [name for name in folders if not name.startswith(".") and name != inner]  # dot: not whole yet
        found += [Path(path)] if MANIFEST in files else []
    return sorted(found)


def _config(path: Path) -> dict[str, Any]:
    """config.yaml: groups of fields, whatever the version. Empty without the file."""
    values = read_yaml(path) if is_there(path) else {}
    groups = {name: group for name, group in values.items() if name in GROUPS}
    if wrong := [name for name, group in groups.items() if not isinstance(group, dict)]:
        raise UserError(f"{path} is damaged ({wrong[0]} is no group of fields)")
    capital = groups.get("profit_tracker", {}).get("initial_capital")
    if capital is not None and (type(capital) not in (int, float) or not 0 < capital < VALUE_MOST):
        raise UserError(f"{path} is damaged (profit_tracker.initial_capital is {shown(capital)})")
    return values
