"""Prepare: load the bars, lay the ground of a run, and prove that nothing on it leaks."""

from dataclasses import replace

from hftraining.core.bars import Bars
from hftraining.core.errors import LeakError
from hftraining.core.progress import phase
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.ground import Ground, as_recorded, lay, stocks_of, use_machine
from hftraining.experiment.proof import prove
from hftraining.market.prices import load_bars

LINES_SHOWN = 3


def prepare(
    config: ExperimentConfig, bars: Bars | None = None, *, sealed: bool = False, base: BaseRun | None = None
) -> Ground:
    """The ground of a run, proved: see `lay`.

    bars: those of the config, if they are already loaded. sealed: training and judging see no bar of the test days.
    base: the run that a fine-tune starts from.

    Raises before anything is written: ConfigError or MarketDataError if the user can mend it, LeakError if we must,
    LearningError if a baseline cannot be fitted.
    """
    config = use_machine(config)
    with phase("reading the bars"):
        universe = bars or load_bars(as_recorded(stocks_of(config, base), config.resume))
    ground = lay(config, universe, sealed=sealed, base=base)
    if base:
        base.refuse_seen_days(ground.days["valid"][0], ground.days["test"][0])
    with phase("the leak proof"):
        proof = prove(ground, config.evidence.leak_days, config.seed)
    if not proof.ok:
        shown = "; ".join(proof.lines[:LINES_SHOWN])
        raise LeakError(f"the leak proof failed, nothing was trained: {shown}")
    return replace(ground, proof=proof)
