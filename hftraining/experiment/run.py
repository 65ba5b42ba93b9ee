"""One run from bars to report: prepare, fit, conclude."""

from hftraining.core.bars import Bars
from hftraining.experiment.conclude import conclude
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.fit import Watch, fit
from hftraining.experiment.ground import Ground, prepare
from hftraining.experiment.opening import opened
from hftraining.reports.console import Console
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
) -> FinishedRun:
    """Train, judge and record one run.

    bars: those that the config asks for, where they are loaded already; a replay pins their snapshot so. The run
    folder is outputs/kind/name/called; name is config.name and called the date and time unless given. A sealed run
    never sees a bar of the test days, and has no test results. `watch` gets the step and the values of each probe;
    what it raises ends the run, and Pruned says that this was meant.

    Raises as prepare does before anything is written, and as fit does afterwards.
    """
    assert not config.init_from, "experiment/finetune.py runs what starts from a base"
    ground = prepare(config, bars, sealed=sealed)
    with opened(ground, argv, kind, name or config.name, called) as (record, row):
        fitted = fit(ground, record, watch, opening_lines(ground))
        conclusion = conclude(ground, fitted, record, row)
        console = Console(fitted.progress.step, 0, config.profit_tracker.report_every, quiet=sealed)
        console.summary(conclusion.result)
    return FinishedRun(record.folder, conclusion.result)


def opening_lines(ground: Ground) -> tuple[str, ...]:
    """What the console says before the first step: bars, days, what was repaired, and the leak proof."""
    bars = ground.universe
    lines = [f"{bars.source}: {len(bars.symbols_S)} symbols, {bars.sessions_T[0]} to {bars.sessions_T[-1]}"]
    for name, period in ground.periods.items():
        first, last = period.window
        lines.append(f"  {name}: {len(period.bars.sessions_T)} sessions, {first} to {last}")
    lines += [f"  note: {warning}" for warning in bars.warnings]
    lines.append(f"  leak proof: passed on {ground.proof.days} days in {ground.proof.seconds:.1f} s")
    return tuple(lines)
