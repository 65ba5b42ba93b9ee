"""The config tree of a run: typed, checked, and refused in one line."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.core.errors import ConfigError, did_you_mean, in_a_line
from hftraining.core.metrics import IC_TAG, PROFIT_LOSS_TAG
from hftraining.core.secret import refuse_secrets
from hftraining.core.untrusted import is_printable, is_there, read_yaml, refuse_links, shown
from hftraining.core.values import flatten, put
from hftraining.evidence.config import EvidenceConfig
from hftraining.market.config import StocksConfig, default_stocks
from hftraining.market.features.config import FeaturesConfig
from hftraining.model.config import HEADLESS, IC_SYMBOLS, WINDOWED, ModelConfig, ObjectiveConfig
from hftraining.portfolio.config import ABSOLUTE, PortfolioConfig
from hftraining.runs.earlier import in_todays_fields
from hftraining.trading.config import LEAST_CAPITAL, MOST_CAPITAL, ProfitTrackerConfig
from hftraining.training.config import TrainingConfig, WalkForwardConfig

_PACKAGE = Path(__file__).resolve().parents[1]
MOST_SEED = 2**53  # larger whole numbers are no longer exact in JSON
MOST_STEP_BYTES = 10**12  # of what one training step has to keep: no machine has a hundredth
# The folder of the config groups: within an installed package, or beside the package of a checkout.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

# What a file that a stranger may have written may ask for; on the command line it is the user's own affair.
MOST = {
    "hidden_size": 65_536,
    "num_layers": 1024,
    "num_heads": 4096,
    "context": 16_384,
    "max_steps": 10**8 - 1,
    "batch_size": 65_536,
    "window": 65_536,
    "symbols_per_window": 4096,
    "threads": 1024,
    "processes": 256,
    "seeds": 100,
    "lora_rank": 4096,
    "null_draws": 100_000,
    "bootstrap_draws": 100_000,
    "leak_days": 1000,
    "horizons": 10_000,
    "seed": 2**63 - 1,
}
TEXT_MOST, LIST_MOST, LEVELS_MOST = 4096, 20_000, 64
WEIGHTS_MOST, BARS_MOST = 10**9, 2**22
SIZES = ("model.num_layers", "model.hidden_size", "training.batch_size", "training.window")


@dataclass
class ExperimentConfig:
    """The tree. Its defaults are what `python train.py` runs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    stocks: StocksConfig = field(default_factory=default_stocks)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    portfolio: PortfolioConfig = field(default_factory=PortfolioConfig)
    profit_tracker: ProfitTrackerConfig = field(default_factory=ProfitTrackerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    walk_forward: WalkForwardConfig = field(default_factory=WalkForwardConfig)
    seed: int = 1  # of all that is random in a run
    name: str = "${model.name}-${stocks.name}-${objective.name}"  # names the run folder
    output_dir: str = "outputs"  # where run folders go
    resume: str | None = None  # a run folder to resume, under its own config
    init_from: str | None = None  # fine-tune: the run folder of the base model

    @property
    def most_steps(self) -> int:
        """The most steps that a training takes: one for a model that brings its own learning."""
        return 1 if self.model.kind in HEADLESS else self.training.max_steps

    def __post_init__(self) -> None:
        """Refuse combinations of groups that make no sense."""
        portfolio, tracker, objective = self.portfolio, self.profit_tracker, self.objective
        if portfolio.horizon and portfolio.horizon not in objective.horizons:
            raise ValueError(
                f"portfolio.horizon={portfolio.horizon} is not one of objective.horizons={objective.horizons}"
            )
        if objective.forecast_weight == 0 and portfolio.kind != "head":
            raise ValueError(
                f"portfolio.kind={portfolio.kind} trades forecasts, but objective.forecast_weight=0 trains "
                "none: use portfolio=head"
            )
        if objective.profit_weight == 0 and portfolio.kind == "head":
            raise ValueError(
                "portfolio.kind=head trades the position head, but objective.profit_weight=0 does not train it: "
                "use objective=mixed or objective=profit"
            )
        if self.model.kind in HEADLESS and portfolio.kind == "head":
            raise ValueError(
                f"portfolio.kind=head trades the position head, which model.kind={self.model.kind} lacks: "
                "use another portfolio"
            )
        if self.training.processes > 1 and self.model.kind in HEADLESS:
            raise ValueError(
                f"training.processes={self.training.processes} share the steps of a network, but model.kind="
                f"{self.model.kind} learns in one process: leave it out"
            )
        self._check_seeds()
        if objective.loss != "pinball" and self.model.kind in HEADLESS:
            raise ValueError(
                f"objective.loss={objective.loss} trains networks, but model.kind={self.model.kind} has a squared "
                "error of its own: leave it out"
            )
        if objective.loss == "ic" and min(self.training.symbols_per_window, self.training.batch_size) < IC_SYMBOLS:
            raise ValueError(
                f"objective.loss=ic correlates the stocks of a day, so training.symbols_per_window="
                f"{self.training.symbols_per_window} and batch_size={self.training.batch_size} must be at least "
                f"{IC_SYMBOLS}, or objective.loss=pinball, which fewer stocks can learn from"
            )
        if reason := self._has_no_best():
            raise ValueError(f"training.best_metric={self.training.best_metric}: {reason}: choose another metric")
        self._check_muon()
        self._check_walk()
        if objective.relative not in ("auto", "none") and portfolio.kind in ABSOLUTE:
            raise ValueError(needs_absolute(portfolio.kind, objective.relative))
        if self.training.methods and not self.init_from:
            raise ValueError(f"training.methods={self.training.methods} needs a base model: init_from=outputs/base/...")
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed={self.seed} must not be negative, and at most {MOST_SEED:,}")
        if not LEAST_CAPITAL <= tracker.initial_capital <= MOST_CAPITAL:
            raise ValueError(
                f"profit_tracker.initial_capital={tracker.initial_capital} must lie in [{LEAST_CAPITAL}, "
                f"{MOST_CAPITAL:.0e}]"
            )
        self._check_size()

    def _check_seeds(self) -> None:
        """Refuse several models where all would be the same, or where one is trained from another."""
        seeds = self.training.seeds
        if seeds > 1 and self.model.kind == "ridge":
            raise ValueError(f"training.seeds={seeds}: model.kind=ridge reads no seed, all would be one: leave it out")
        if seeds > 1 and self.init_from:
            raise ValueError(
                f"training.seeds={seeds} trains new models, where init_from tunes one: leave it out, tune several "
                "models, and join them: python -m hfinference ensemble RUN RUN"
            )
        if seeds > 1 and self.walk_forward.every:
            raise ValueError(
                f"training.seeds={seeds} and walk_forward.every={self.walk_forward.every}: a fold has one "
                "model: leave one of them out"
            )
        if self.seed + seeds - 1 > MOST_SEED:
            raise ValueError(f"seed={self.seed} and training.seeds={seeds}: the last seed is above {MOST_SEED:,}")

    def _check_muon(self) -> None:
        """Refuse an optimiser of hidden matrices where none is trained: it would be that of the rest."""
        kind, methods = self.model.kind, self.training.methods
        if self.training.optimizer != "muon" or any(trains_hidden(self.model, method) for method in methods or [""]):
            return
        lacks = not trains_hidden(self.model)
        what = f"a model.kind={kind} of this size has" if lacks else f"training.methods={methods} trains"
        raise ValueError(f"training.optimizer=muon: {what} no hidden matrices: use training.optimizer=adamw")

    def _check_walk(self) -> None:
        """Refuse a walk-forward that cannot be trained as asked."""
        walk, training = self.walk_forward, self.training
        if not walk.every:
            return
        asked = f"walk_forward.every={walk.every}"
        if self.init_from:
            raise ValueError(f"{asked} trains new models, and init_from={self.init_from} fine-tunes one: leave one out")
        if walk.finetune and self.model.kind in HEADLESS:
            raise ValueError(
                f"walk_forward.finetune=true trains on from weights, but model.kind={self.model.kind} always learns "
                "anew: leave it out"
            )
        if walk.workers > 1 and training.processes > 1:
            raise ValueError(
                f"walk_forward.workers={walk.workers} and training.processes={training.processes} would divide the "
                "same machine: set one of them to 1"
            )

    def _has_no_best(self) -> str:
        """Why no probe of this run has the metric that chooses the best step; empty where one has."""
        metric, objective, kind = self.training.best_metric, self.objective, self.model.kind
        if metric == PROFIT_LOSS_TAG and kind in HEADLESS:
            return f"model.kind={kind} has no position head"
        if metric == PROFIT_LOSS_TAG and not objective.profit_weight:
            return "objective.profit_weight=0 does not train the position head"
        if metric == IC_TAG and not objective.forecast_weight:
            return "objective.forecast_weight=0 trains no forecasts"
        return ""

    def _check_size(self) -> None:
        """Refuse a training step that no machine could take, or that has nothing to take or leaves weights out."""
        training, model, objective = self.training, self.model, self.objective
        if objective.profit_weight and training.window < 3:
            raise ValueError(
                f"training.window={training.window} must be at least 3, since objective.profit_weight="
                f"{objective.profit_weight} wants the variance of the returns between its bars"
            )
        if model.kind in WINDOWED and training.window < model.context:
            raise ValueError(
                f"training.window={training.window} must be at least model.context={model.context}: what a model.kind="
                f"{model.kind} sees of the bars before a window would never be trained, and be in its forecasts"
            )
        again = model.context if model.kind in WINDOWED else 1  # each bar is read as often
        if model.kind == "patchtst" and model.channel_independent:
            again *= len(self.features.columns)
        about = 40 * training.batch_size * training.window * model.hidden_size * model.num_layers * again
        if about > MOST_STEP_BYTES:
            raise ValueError(
                f"training.batch_size={training.batch_size} and window={training.window} with model.hidden_size="
                f"{model.hidden_size} and num_layers={model.num_layers} would need about {about:.0e} bytes a step: "
                "choose smaller ones"
            )


def trains_hidden(model: ModelConfig, method: str = "") -> bool:
    """Whether matrices between first layers and heads are trained, by a method of fine-tuning where one is named.

    A model that brings its own learning has none either, and reads no optimiser.
    """
    has = model.kind != "linear" and not (model.kind == "mlp" and model.num_layers == 1)
    return has and method != "head" and not (method == "lora" and model.kind == "lstm")  # whose recurrence lora leaves


def needs_absolute(kind: str, relative: str) -> str:
    """The message for a portfolio that relative forecasts cannot feed."""
    return (
        f"portfolio.kind={kind} needs absolute returns, but objective.relative={relative} forecasts relative ones: "
        "use objective.relative=none or portfolio=tilt"
    )


def typed_config(values: Any) -> ExperimentConfig:
    """The checked tree from nested values (a dict or an OmegaConf node).

    Merged onto the dataclass again, so that a key added with `+` is refused, too. Raises ConfigError.
    """
    try:
        plain = OmegaConf.to_container(values, resolve=False) if OmegaConf.is_config(values) else values
        if isinstance(plain, dict):
            refuse_secrets(plain)
        merged = OmegaConf.merge(_schema(), plain)  # which copies it
        config = OmegaConf.to_object(merged)
        assert isinstance(config, ExperimentConfig)
        _check_texts_and_lists(config)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(in_a_line(explain(error))) from error
    return config


@cache
def _schema() -> DictConfig:
    """The dataclasses as OmegaConf sees them: made once, since a sweep checks dozens of configs before it begins."""
    return OmegaConf.structured(ExperimentConfig)


def _check_texts_and_lists(config: Any, prefix: str = "") -> None:
    """Refuse a list within a typed list, which OmegaConf lets pass, empty text, and text that no file can hold.

    Empty text is a variable of the shell that is not set: it would pass for a field that was left out.
    """
    types = typing.get_type_hints(type(config))
    for entry in dataclasses.fields(config):
        name, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            _check_texts_and_lists(value, f"{name}.")
        items = value if isinstance(value, list) else [value]
        wanted = typing.get_args(types[entry.name])[:1] if isinstance(value, list) else ()
        for item in items:
            if isinstance(item, str) and not item.strip():
                what = "has an empty text" if isinstance(value, list) else "is empty"
                raise ValueError(f"{name}= {what}: give a value, or leave it out")
            if wanted and not isinstance(item, wanted):
                raise ValueError(f"{name}: {in_a_line(repr(item), 60)} in the list is no {wanted[0].__name__}")
            if isinstance(item, str) and re.search("[\0\ud800-\udfff]", item):
                raise ValueError(f"{name}: {in_a_line(item, 60)} has a letter that no file can hold")


def load_config(path: Path) -> ExperimentConfig:
    """The config of a run folder's config.yaml, which a stranger may have written. Raises UserError, for links, too.

    Values alone count: nothing is interpolated, and no field asks for more than a machine can give.
    """
    if not is_there(path):
        raise ConfigError(f"{path} does not exist: resume wants a run folder, e.g. resume=outputs/base/NAME/DATE_TIME")
    refuse_links(path.parent)
    return typed_config(plain_values(path))


def plain_values(path: Path) -> dict[str, Any]:
    """The nested values of a file of config fields, as data. Raises UserError, naming the file and the field.

    A field that there is not, an interpolation, an unprintable text and a number or list beyond MOST are refused. The
    config.yaml of an earlier version has the fields that were added since, and no value where it had an empty text.
    """
    values = read_yaml(path)
    if path.name == "config.yaml":
        values = in_todays_fields(values)
    known = flatten(dataclasses.asdict(ExperimentConfig()))
    for name, value in flatten(values).items():
        if value == "" and name in known and known[name] is None:
            put(values, name, None)
            continue
        if name not in known:
            raise ConfigError(f"{path}: {unknown_key(shown(name))}")
        most = MOST.get(name.rpartition(".")[2])
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and ("${" in item or len(item) > TEXT_MOST or not is_printable(item)):
                what = "a reference, which is not followed here" if "${" in item else "no text of a config"
                raise ConfigError(f"{path}: {name}={shown(item)} is {what}: write the value itself")
            if isinstance(item, list | dict):
                raise ConfigError(f"{path}: {name} holds values within values, which no field takes")
            if most is not None and type(item) in (int, float) and abs(item) > most:
                raise ConfigError(f"{path}: {name}={shown(item)} is above {most:,}, the most that a file may ask for")
        if isinstance(value, list) and len(value) > LIST_MOST:
            raise ConfigError(f"{path}: {name} has {len(value):,} entries, the most is {LIST_MOST:,}")
    refuse_huge(values, path)
    return values


def refuse_huge(values: Mapping[str, Any], path: Path) -> None:
    """Refuse a network or a batch that no machine of ours holds, before any of it is made. Raises ConfigError."""
    flat = flatten(values)
    layers, width, batch, window = (_whole(flat.get(name)) for name in SIZES)
    if (weights := 12 * layers * width**2) > WEIGHTS_MOST:
        raise ConfigError(f"{path}: a model of {weights:,} weights is above {WEIGHTS_MOST:,}, the most")
    if batch * window > BARS_MOST:
        raise ConfigError(f"{path}: a step on {batch * window:,} bars is above {BARS_MOST:,}, the most")
    for name in ("horizons", "quantiles"):
        found = flat.get(f"objective.{name}")
        if isinstance(found, list) and len(found) > LEVELS_MOST:
            raise ConfigError(f"{path}: objective.{name} has {len(found)} entries, the most is {LEVELS_MOST}")


def _whole(value: Any) -> int:
    return value if type(value) is int else 0  # another type is refused as such


def explain(error: BaseException) -> str:
    """One line for a config error, with a did-you-mean for a key that is close to a known one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))), "")
    full_key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    if "is not a ListConfig, list or tuple" in text and full_key:
        value = getattr(error, "value", None)
        if isinstance(value, str) and not value.strip():
            return f"{full_key}= is empty: give a list in brackets, or leave it out"
        items = ",".join(str(value).replace(",", " ").split()) if isinstance(value, str | int | float) else "..."
        return f"{full_key} is a list: write {full_key}=[{in_a_line(items, 60)}]"
    if match := re.search(r"Key '(\w+)' (?:not in|is not in struct)", text):
        return unknown_key(full_key or match.group(1))
    return f"{full_key}: {text}" if full_key and full_key not in text else text


def unknown_key(key: str) -> str:
    """The message for a field that does not exist, with the closest one that does."""
    defaults = dataclasses.asdict(ExperimentConfig())
    fields = [*defaults, *flatten(defaults)]
    hint = did_you_mean(key, [name for name in fields if ("." in name) == ("." in key)])
    if not hint:  # the right field, under a wrong group or none
        elsewhere = [name for name in fields if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else ""
    return f"{key}: there is no such field{hint}"
