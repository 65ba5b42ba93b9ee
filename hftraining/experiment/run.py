"""One run from bars to report: prepare, fit, conclude."""

from pathlib import Path

from hftraining.core.bars import Bars
from hftraining.core.progress import phases_shown
from hftraining.experiment.conclude import conclude
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finished import finished_result, is_sealed
from hftraining.experiment.fit import Watch, fit, watch_again
from hftraining.experiment.ground import Ground
from hftraining.experiment.inherit import notes_of
from hftraining.experiment.opening import opened
from hftraining.experiment.prepare import prepare
from hftraining.experiment.relative import labels_line
from hftraining.experiment.seeds import fit_members
from hftraining.experiment.walk_forward import walk
from hftraining.reports.console import Console
from hftraining.runs.record import read_metrics
from hftraining.runs.result import FinishedRun


def run_experiment(
    config: ExperimentConfig,
    argv: list[str] | None = None,
    bars: Bars | None = None,
    *,
    kind: str = "base",
    name: str | None = None,
    called: str | None = None,
    sealed: bool = False,
    watch: Watch | None = None,
    part_of: str | None = None,
    repeats: str | None = None,
) -> FinishedRun:
    """Train, judge and record one run.

    bars: those of the config, if they are already loaded, as by a replay. The run folder is outputs/kind/name/called;
    name is config.name and called the date and time unless given. A sealed run sees no bar of the test days and has no
    test results, whoever resumes it. watch: see fit. part_of, repeats: see opened. A run to resume that lacks its
    report alone gets it. Raises as prepare before anything is written, and as fit afterwards.
    """
    assert not config.init_from, "experiment/finetune.py runs fine-tunes"
    if config.resume:
        folder = Path(config.resume)
        if known := finished_result(folder, config.evidence):
            if watch is not None:
                watch_again(read_metrics(folder), watch)
            return FinishedRun(folder, known)
        sealed = sealed or is_sealed(folder)
    # A trial of a sweep has one line of its own.
    with phases_shown(not sealed):
        ground = prepare(config, bars, sealed=sealed)
    with (
        phases_shown(not sealed),
        opened(ground, argv, kind, name or config.name, called, part_of, repeats) as (record, row),
    ):
        lines, walked = opening_lines(ground, record.folder), None
        if config.walk_forward.every:
            fitted, walked = walk(ground, record, row, lines)
        elif config.training.seeds > 1:
            assert watch is None, "the sweep refuses training.seeds"
            fitted = fit_members(ground, record, lines)
        else:
            fitted = fit(ground, record, watch, lines, quiet=sealed)
        conclusion = conclude(ground, fitted, record, row, walked=walked)
        console = Console(fitted.progress.step, 0, config.profit_tracker.report_every, quiet=sealed)
        console.summary(conclusion.result, record.folder)
    return FinishedRun(record.folder, conclusion.result)


def opening_lines(ground: Ground, folder: Path) -> tuple[str, ...]:
    """The lines of the console before the first step: run folder, bars, days, labels, repairs and the leak proof."""
    bars = ground.universe
    lines = [
        f"run folder: {folder}",
        f"{bars.source}: {len(bars.symbols_S)} symbols, {bars.sessions_T[0]} to {bars.sessions_T[-1]}",
    ]
    for name, period in ground.periods.items():
        lines.append(f"  {name}: {len(period.bars.sessions_T)} sessions, {' to '.join(period.window)}")
    said = labels_line(ground.config, ground.forecaster.relative, len(bars.symbols_S), ground.base)
    lines += [f"  {said}", *(f"  note: {warning}" for warning in (*bars.warnings, *notes_of(ground.config)))]
    training = ground.config.training
    if training.device != "cpu" and ground.config.objective.profit_weight and ground.windows:
        lines.append(f"  the profit loss is computed on the CPU, for which training.device={training.device} waits")
    lines.append(f"  leak proof: passed on {ground.proof.days} days in {ground.proof.seconds:.1f} s")
    return tuple(lines)
