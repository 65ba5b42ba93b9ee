"""What a run forecasts: the kind of its labels, chosen from the config and the stocks, and said in a line."""

from hftraining.core.errors import ConfigError
from hftraining.core.relative import LEAST_SYMBOLS
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.config import ExperimentConfig
from hftraining.model.config import RELATIVE_FROM, relative_of


def chosen_relative(config: ExperimentConfig, n_symbols: int, base: BaseRun | None) -> str:
    """The kind of the labels of a run on so many symbols, `auto` resolved; that of its base for a fine-tune.

    Raises ConfigError where there are too few symbols to compare.
    """
    relative = base.forecaster.relative if base else relative_of(config.objective, n_symbols)
    if relative != "none" and n_symbols < LEAST_SYMBOLS:
        raise ConfigError(
            f"objective.relative={relative} compares the stocks of a day, but there is {n_symbols}: use more "
            "stocks, or objective.relative=none"
        )
    return relative


def labels_line(config: ExperimentConfig, relative: str, n_symbols: int, base: BaseRun | None) -> str:
    """What is forecast, for the console."""
    if relative != "none":
        return f"labels: {relative} across {n_symbols} stocks{', as the base model' if base else ''}"
    few = config.objective.relative == "auto" and not base and n_symbols < RELATIVE_FROM
    return "labels: absolute" + (", since fewer than ten symbols" if few else "")
