"""The config of a fine-tune: what the base run had, what fine-tuning changes, and what the user asks for."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftraining.core.errors import ConfigError
from hftraining.core.values import flatten
from hftraining.experiment.base_run import BaseModel
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.runs.identity import config_delta, signature

OWN = ("name", "output_dir", "resume", "init_from")  # fields that are no base's to give
SYMBOLS_IN_A_NAME = 3


def inherit(asked: Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The config of a fine-tune: what the base had, then conf/training/finetune.yaml, then what the user asked for.

    asked: nested values of all fields, as composed. overrides: the texts that the user typed (training.max_steps=50); a
    group's option asks for all fields of the group. What differs from the defaults was asked for, too. Dates that are
    not asked for are the base's, as days. Raises ConfigError where the base cannot be used, or is not the one that is
    asked for.
    """
    base = open_base(str(asked["init_from"]), asked["training"]["device"])
    values = dataclasses.asdict(typed_config({k: v for k, v in base.config.items() if k not in OWN}))
    values["training"] |= composed(config_name="training/finetune")["training"]
    values["stocks"] |= {"refresh": False, "name": "finetune"}
    wanted, defaults = flatten(asked), flatten(dataclasses.asdict(typed_config({})))
    keys = [text.lstrip("+~").split("=")[0] for text in overrides]
    for name, value in wanted.items():
        typed = any(name == key or name.startswith(f"{key}.") for key in keys)
        if name in OWN or typed or (value != defaults[name] and not name.endswith(".name")):
            group, _, field = name.rpartition(".")
            (values[group] if group else values)[field] = value
    for name in ("valid", "test"):
        values["stocks"][f"{name}_start"] = values["stocks"][f"{name}_start"] or base.forecaster.days[name][0]
    symbols = values["stocks"]["symbols"] = values["stocks"]["symbols"] or list(base.forecaster.symbols)
    if "name" not in keys:
        shown = symbols[:SYMBOLS_IN_A_NAME]
        values["name"] = "-".join(shown) + (f"-and-{len(symbols) - len(shown)}-more" if symbols != shown else "")
    made = typed_config(values)
    check(made, base)
    return made


def open_base(init_from: str | Path, device: str = "cpu") -> BaseModel:
    """The verified base run of a folder. Raises ConfigError."""
    return BaseModel.open(Path(init_from), device)


def check(config: ExperimentConfig, base: BaseModel) -> None:
    """Raise ConfigError where a config and its base do not go together, with what differs."""
    if not config.training.methods:
        raise ConfigError("training.methods is empty: name what to try, e.g. training.methods=[full,head,lora,scratch]")
    lacking = set(base.forecaster.symbols) - set(config.stocks.symbols)
    if config.model.cross_asset and lacking:
        raise ConfigError(
            f"init_from={base.folder}: the base looks across its stocks (model.cross_asset=true), so it cannot "
            f"be tuned without {len(lacking)} of them: leave stocks.symbols out, or train another base model"
        )
    base.refuse_other(dataclasses.asdict(config))
    if config.stocks.valid_start and config.stocks.test_start:
        base.refuse_seen_days(config.stocks.valid_start, config.stocks.test_start)


def candidate_config(config: ExperimentConfig, base: BaseModel, method: str) -> ExperimentConfig:
    """The config of one candidate alone: what its method does not read is set to the default, so that it is one trial.

    From scratch the same steps and windows are trained, at the learning rate and weight decay of the base.
    """
    training = dataclasses.replace(config.training, methods=[method], lora_rank=type(config.training)().lora_rank)
    if method == "lora":
        training.lora_rank = config.training.lora_rank
    if method == "scratch":
        theirs = base.config["training"]
        training.learning_rate, training.weight_decay = theirs["learning_rate"], theirs["weight_decay"]
        training.shrinkage = 0.0
    return dataclasses.replace(config, training=training, resume=None)


def signature_of(
    config: ExperimentConfig, base: BaseModel | None, candidate: str | None = None
) -> tuple[dict[str, Any], str]:
    """The delta of a run from the defaults and its signature; what identifies its base, if it has one, is in both.

    candidate: set for one candidate of a fine-tune, which is another trial than a fine-tune that tries it alone.
    """
    delta = config_delta(dataclasses.asdict(config), dataclasses.asdict(typed_config({})))
    more = (base.identity if base else {}) | ({"candidate": candidate} if candidate else {})
    delta = dict(sorted((delta | more).items()))
    return delta, signature(delta)
