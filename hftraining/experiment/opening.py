"""What a run opens and what it says at the end: its folder with config and manifest, its row, its warnings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import ExperimentConfig, typed_config

if TYPE_CHECKING:
    import pandas as pd

    from hftraining.core.bars import Bars
    from hftraining.experiment.periods import Period
    from hftraining.experiment.trial import Trial
    from hftraining.runs.record import RunRecord


def open_record(
    config: ExperimentConfig, bars: Bars, argv: list[str] | None, where: tuple[str, str, str | None]
) -> RunRecord:
    """A new run folder with config and manifest in it, or the folder of the run to go on with.

    where: kind, name and, unless it is the date and time, the last part of outputs/kind/name/date_time.
    """
    from hftraining.runs.bar_digests import digest_bars, write_digests
    from hftraining.runs.identity import config_delta, signature
    from hftraining.runs.record import RunRecord
    from hftraining.training.checkpoint import Checkpoints

    if config.resume:
        folder = Path(config.resume)
        known = run_json(folder)
        if bars.fingerprint() != known["data"]["fingerprint"]:
            raise ConfigError(
                f"{folder}: the bars are not those that the run began with (fingerprint {bars.fingerprint()} where "
                f"run.json says {known['data']['fingerprint']}): start a new run"
            )
        return RunRecord.reopen(folder, Checkpoints(folder / "checkpoints").newest())
    delta = config_delta(dataclasses.asdict(config), dataclasses.asdict(typed_config({})))
    record = new_record(config, bars, argv, where, delta, signature(delta))
    write_digests(digest_bars(bars), record.folder, Path(config.output_dir) / ".bars" / f"{bars.fingerprint()}.npz")
    return record


def new_record(
    config: ExperimentConfig,
    bars: Bars,
    argv: list[str] | None,
    where: tuple[str, str, str | None],
    delta: dict[str, Any],
    signature: str,
    base: Mapping[str, Any] | None = None,
    **data: str,
) -> RunRecord:
    """A new run folder with config and manifest in it, before the first step.

    base: what it started from. data: what else is to be said of the bars. where: as in `open_record`.
    """
    import torch

    from hftraining.runs.code_version import code_patch
    from hftraining.runs.identity import manifest
    from hftraining.runs.record import RunRecord

    patch = code_patch()
    facts = manifest(
        signature=signature,
        seed=config.seed,
        threads=torch.get_num_threads(),
        fingerprint=bars.fingerprint(),
        source=bars.source,
        symbols=bars.symbols_S,
        first=str(bars.sessions_T[0]),
        last=str(bars.sessions_T[-1]),
        snapshot=bars.snapshot,
        argv=argv,
        patch=patch,
    )
    facts["data"] |= data
    if base is not None:
        facts["base"] = dict(base)
    kind, name, called = where
    values = dataclasses.asdict(config)
    return RunRecord.create(Path(config.output_dir), kind, name, values, delta, facts, patch[0], called)


def check_resumable(folder: Path) -> None:
    """A run that is finished has nothing to go on with; another thread count would give other bits."""
    import torch

    if (folder / "result.json").exists():
        raise ConfigError(f"{folder} is finished: there is nothing to resume")
    try:
        threads = json.loads((folder / "run.json").read_text())["threads"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} is not a run that can be resumed: run.json cannot be read ({error})") from error
    torch.set_num_threads(threads)


def row_in_the_ledger(
    config: ExperimentConfig, record: RunRecord, periods: dict[str, Period]
) -> AbstractContextManager[Trial]:
    """The run's row while it runs: see `training.trial.in_the_ledger`."""
    from hftraining.core.errors import Interrupted, Pruned
    from hftraining.experiment.trial import in_the_ledger

    endings = {"interrupted": (Interrupted, KeyboardInterrupt), "pruned": (Pruned,)}
    facts = run_json(record.folder)
    return in_the_ledger(record.folder.parents[2], record.folder, facts, periods, bool(config.resume), endings)


def run_json(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder."""
    return json.loads((folder / "run.json").read_text())


def stacked(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames under each other, with a first column that names the window."""
    import pandas as pd

    return pd.concat([frame.assign(window=name) for name, frame in frames.items()], ignore_index=True)


def warnings_of(config: ExperimentConfig, of_the_bars: tuple[str, ...], openings: int) -> list[str]:
    """What a reader of the results has to know, one sentence each."""
    warnings = list(of_the_bars)
    warnings.append("the symbols were chosen by people who know which ones survived: profits on them are flattered")
    if openings > 1:
        warnings.append(f"these test days were opened {openings} times: their figures count for less each time")
    if config.objective.label == "close":
        warnings.append("objective.label=close: the forecasts are of close-to-close returns, which nobody can trade")
    if config.profit_tracker.commission + config.profit_tracker.slippage == 0:
        warnings.append("no trading costs: profits say what forecasts are worth before anyone is paid")
    return warnings
