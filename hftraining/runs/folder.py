"""Run folders read back: what a folder holds, and which folders below a path are runs."""

import glob
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import UserError
from hftraining.runs.record import read_metrics
from hftraining.runs.result import RunResult, read_result

CANDIDATES_FOLDER = "candidates"  # of what a fine-tune tried, within its own folder


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
    def outputs(self) -> Path | None:
        """The outputs folder around outputs/kind/name/date_time; None once the run was moved elsewhere."""
        folder = self.path.resolve()
        in_place = folder.parts[-3:-1] == (self.manifest.get("kind"), self.manifest.get("name"))
        return folder.parents[2] if in_place else None


def read_run(folder: Path) -> RunFolder:
    """All files of a run, finished or interrupted. Raises UserError for a folder that is not a run, or damaged."""
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} is not a run: it has no run.json")
    return RunFolder(
        path=folder,
        config=_with_added_fields(_mapping(folder / "config.yaml", yaml.safe_load)),
        config_diff=read_config_diff(folder),
        manifest=_mapping(folder / "run.json", json.loads),
        history=read_metrics(folder),
        result=read_result(folder),
        equity=_frame(folder / "equity.parquet"),
        trades=_frame(folder / "trades.parquet"),
        null_band=_frame(folder / "null_band.parquet"),
    )


def read_config_diff(folder: Path) -> dict[str, Any]:
    """What differed from the defaults when a run began; empty without the file. Raises UserError for a damaged one."""
    return _mapping(folder / "config_diff.yaml", yaml.safe_load)


def find_runs(places: Sequence[str | Path]) -> list[Path]:
    """Run folders, each once, in the order of the places: run folders, patterns, or folders that hold runs.

    Runs below one folder are sorted by name. Raises UserError for a place without a run.
    """
    found: dict[Path, Path] = {}
    for place in places:
        matches = [Path(place)]
        if not matches[0].exists() and glob.has_magic(str(place)):
            matches = sorted(map(Path, glob.glob(str(place), recursive=True)))
        runs = [run for match in matches for run in _runs_below(match)]
        if not runs:
            there = bool(matches) and matches[0].exists()
            what = "holds no run: no folder in it has a run.json" if there else "does not exist"
            raise UserError(f"{place} {what}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_below(place: Path) -> list[Path]:
    if (place / "run.json").is_file():
        return [place]
    return sorted(path.parent for path in place.rglob("run.json")) if place.is_dir() else []


def _with_added_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Add the fields that the version before did not write, with the values that it meant."""
    if isinstance(config.get("model"), dict):
        config["model"].setdefault("kind", "transformer")
    return config


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """An object of a JSON or YAML file, empty without the file."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        values = parse(text) if text else {}
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0]})") from error
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path} is damaged (it holds no mapping)")
    return values or {}


def _frame(path: Path) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(path) if path.exists() else None
    except ValueError as error:  # pyarrow's own are ValueErrors
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0]})") from error
