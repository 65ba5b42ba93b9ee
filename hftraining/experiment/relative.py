"""What a run forecasts: the kind of its labels, chosen from the config and the stocks, and said in a line."""

from hftraining.core.errors import ConfigError
from hftraining.core.relative import LEAST_SYMBOLS
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.baselines import without_head
from hftraining.experiment.config import ExperimentConfig, needs_absolute
from hftraining.model.config import RELATIVE_FROM, relative_of
from hftraining.portfolio.config import ABSOLUTE, kind_of


def chosen_relative(config: ExperimentConfig, n_symbols: int, n_traded: int, base: BaseRun | None) -> str:
    """The kind of the labels of a run on so many symbols, `auto` resolved; that of its base for a fine-tune.

    `auto` is none for a portfolio that the user chose and that needs absolute returns. Raises ConfigError where there
    are too few symbols to compare, and where n_traded symbols are traded by a portfolio that relative forecasts cannot
    feed.
    """
    if base:
        relative = base.forecaster.relative
    elif _gives_way(config):
        relative = "none"
    else:
        relative = relative_of(config.objective, n_symbols)
    if relative == "none":
        return relative
    if n_symbols < LEAST_SYMBOLS:
        raise ConfigError(
            f"objective.relative={relative} compares the stocks of a day, but there is {n_symbols}: use more "
            "stocks, or objective.relative=none"
        )
    for portfolio in (config.portfolio, without_head(config.portfolio)):  # the latter trades baselines
        if (kind := kind_of(portfolio, n_traded)) in ABSOLUTE:
            raise ConfigError(_of_the_base(kind, relative) if base else needs_absolute(kind, relative))
    return relative


def labels_line(config: ExperimentConfig, relative: str, n_symbols: int, base: BaseRun | None) -> str:
    """What is forecast, for the console."""
    if relative != "none":
        return f"labels: {relative} across {n_symbols} stocks{', as the base model' if base else ''}"
    why = ""
    if config.objective.relative == "auto" and not base:
        why = f"since portfolio.kind={config.portfolio.kind} needs absolute returns"
        why = why if _gives_way(config) and n_symbols >= RELATIVE_FROM else "since fewer than ten symbols"
    return "labels: absolute" + (f", {why}" if why else "")


def _gives_way(config: ExperimentConfig) -> bool:
    """Whether `auto` gives way to the portfolio of the user."""
    return config.objective.relative == "auto" and config.portfolio.kind in ABSOLUTE


def _of_the_base(kind: str, relative: str) -> str:
    return (
        f"portfolio.kind={kind} needs absolute returns, but the base model forecasts relative ones "
        f"(objective.relative={relative}): use portfolio=tilt, or a base trained with objective.relative=none"
    )
