"""The config of a fine-tune: the fields of its base run, the defaults of fine-tuning, and the user's settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftraining.core.errors import ConfigError
from hftraining.core.values import canonical, flatten, put
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig, load_config, trains_hidden, typed_config
from hftraining.market.config import StocksConfig
from hftraining.market.prices import as_named
from hftraining.model.config import HEADLESS
from hftraining.runs.code_version import source_digest
from hftraining.runs.folder import read_config_diff
from hftraining.runs.identity import cannot_change_a_number, config_delta, signature
from hftraining.runs.record import read_manifest
from hftraining.training.config import WalkForwardConfig

OWN = ("name", "output_dir", "resume", "init_from", "evidence.ledger")  # fields that are not inherited
SYMBOLS_IN_A_NAME = 3
NAMED = 5  # fields in one sentence


def inherit(asked: Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The config of a fine-tune: the base's config, then conf/training/finetune.yaml, then the user's settings.

    asked: nested values of all fields, as composed. overrides: the texts that the user typed (training.max_steps=50); a
    group's option sets all fields of the group. A value that differs from the default counts as the user's, too. The
    base's dates are inherited as days. Raises ConfigError if the base cannot be used or does not fit the settings.
    """
    base = BaseRun.open(str(asked["init_from"]), asked["training"]["device"])
    values = dataclasses.asdict(typed_config({k: v for k, v in base.config.items() if k not in OWN}))
    values["walk_forward"] = dataclasses.asdict(WalkForwardConfig())  # of the base: how its model came about
    theirs = {name: values["training"][name] for name in ("batch_size", "symbols_per_window")}
    values["training"] |= composed(config_name="training/finetune")["training"]
    values["stocks"] |= {"refresh": False, "name": "finetune"}
    wanted, defaults = flatten(asked), flatten(dataclasses.asdict(typed_config({})))
    keys = [text.lstrip("+~").split("=")[0] for text in overrides]

    def is_asked(name: str) -> bool:
        typed = any(name == key or name.startswith(f"{key}.") for key in keys)
        return name in OWN or typed or (wanted[name] != defaults[name] and not name.endswith(".name"))

    for name in filter(is_asked, wanted):
        put(values, name, wanted[name])
    training = values["training"]
    if values["model"]["cross_asset"] or values["objective"]["loss"] == "ic":
        # Windows of one stock, as for a specialist, would teach it to look at nobody, and have no order of the day.
        training |= {name: value for name, value in theirs.items() if not is_asked(f"training.{name}")}
    unread = _unread(training, values["stocks"])
    for name in defaults:
        if (name in unread or name.rpartition(".")[0] in unread) and not is_asked(name):
            put(values, name, defaults[name])
    for name in ("valid", "test"):
        values["stocks"][f"{name}_start"] = values["stocks"][f"{name}_start"] or base.forecaster.days[name][0]
    known = base.forecaster.symbols
    symbols = values["stocks"]["symbols"] = as_named(values["stocks"]["symbols"] or known, known)
    if "name" not in keys:
        shown = symbols[:SYMBOLS_IN_A_NAME]
        values["name"] = "-".join(shown) + (f"-and-{len(symbols) - len(shown)}-more" if symbols != shown else "")
    made = typed_config(values)
    check(made, base)
    return made


def _unread(training: Mapping[str, Any], stocks: Mapping[str, Any]) -> list[str]:
    """Fields, and groups of fields, that belong to a choice of the base's where the user has made another one."""
    of_files = ("stocks.path", "stocks.csv", "stocks.csv.columns", "stocks.resample")
    belongs = {
        ("training.decay_share",): training["schedule"] == "wsd",
        ("training.engine",): training["processes"] > 1,
        of_files: stocks["source"] == "files",
        ("stocks.snapshot",): stocks["source"] == "yahoo" and not stocks["refresh"],
    }
    return [name for names, is_read in belongs.items() if not is_read for name in names]


def check(config: ExperimentConfig, base: BaseRun) -> None:
    """Raise ConfigError, with the difference, where a config does not fit its base."""
    if not config.training.methods:
        raise ConfigError("training.methods is empty: name what to try, e.g. training.methods=[full,head,lora,scratch]")
    lacking = set(base.forecaster.symbols) - set(config.stocks.symbols)
    if config.model.cross_asset and lacking:
        raise ConfigError(
            f"init_from={base.folder}: the base looks across its stocks (model.cross_asset=true), so it cannot "
            f"be tuned without {len(lacking)} of them: leave stocks.symbols out, or train another base model"
        )
    facts = read_manifest(base.folder)
    if (facts.get("code") or {}).get("digest") == source_digest():  # other code may have had other defaults
        refuse_edited(base.folder, facts, typed_config(base.config))
    base.refuse_other(dataclasses.asdict(config))
    valid, test = (_border(name, config.stocks, base) for name in ("valid", "test"))
    if valid and test:
        base.refuse_seen_days(valid, test)


def _border(name: str, stocks: StocksConfig, base: BaseRun) -> str | None:
    """The day from which on a fine-tune is judged: the first session of the base where it is that of the base's config.

    That may be no session: 2013-01-01 is a holiday. prepare looks at the sessions of other days.
    """
    day: str | None = getattr(stocks, f"{name}_start")
    return base.forecaster.days[name][0] if day == base.config["stocks"].get(f"{name}_start") else day


def candidate_config(config: ExperimentConfig, base: BaseRun, method: str) -> ExperimentConfig:
    """The config of one candidate. Fields that its method does not read take their defaults, so that it is one trial.

    Training from scratch takes the same steps and windows, at the learning rate and weight decay of the base.
    """
    training = dataclasses.replace(config.training, methods=[method], lora_rank=type(config.training)().lora_rank)
    if method == "lora":
        training.lora_rank = config.training.lora_rank
    if not trains_hidden(config.model, method):
        training.optimizer = type(config.training)().optimizer
    if method == "scratch":
        theirs = base.config["training"]
        training.learning_rate, training.weight_decay = theirs["learning_rate"], theirs["weight_decay"]
        training.shrinkage = 0.0
    return dataclasses.replace(config, training=training, resume=None)


def signature_of(
    config: ExperimentConfig,
    base: BaseRun | None = None,
    candidate: str | None = None,
    further: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """The delta of a run from the defaults, and its signature. Both hold the identity of its base, if it has one.

    candidate: set for one candidate of a fine-tune, which is another trial than a fine-tune that tries it alone.
    further: what the config does not say and the numbers depend on, by dotted name, such as the weights of a book.
    """
    delta = _delta(config) | dict(further or {})
    if base:  # by what can change a number; its path cannot
        delta |= {"base.signature": base.signature, "base.weights": base.weights}
    if candidate:
        delta["candidate"] = candidate
    delta = dict(sorted(delta.items()))
    counted = {name: value for name, value in delta.items() if config.model.kind not in HEADLESS or _is_read(name)}
    return delta, signature(counted)


def with_precision_of(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The config, with what its training.precision=auto has come to in the run of a folder, if it has one."""
    path = folder / "config.yaml"
    if config.training.precision != "auto" or not path.is_file():
        return config
    precision = load_config(path).training.precision
    return dataclasses.replace(config, training=dataclasses.replace(config.training, precision=precision))


def unread(config: ExperimentConfig) -> list[str]:
    """One sentence that names the fields that were set and that this kind of model does not read; none without any."""
    names = [name for name in _delta(config) if not (_is_read(name) or cannot_change_a_number(name))]
    if config.model.kind not in HEADLESS or not names:
        return []
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return [f"{config.model.kind} brings its own learning and reads none of {shown}: they change nothing"]


def notes_of(config: ExperimentConfig) -> list[str]:
    """What a config asks for and does not get, a sentence each."""
    training, notes = config.training, unread(config)
    if config.model.kind in HEADLESS:
        return notes
    if training.warmup_steps > training.max_steps:
        notes.append(
            f"training.warmup_steps={training.warmup_steps} is not over in training.max_steps={training.max_steps}: "
            f"the learning rate stays below training.learning_rate={training.learning_rate:g}"
        )
    if training.lora_rank != type(training)().lora_rank and "lora" not in training.methods:
        notes.append(f"training.lora_rank={training.lora_rank} changes nothing: no method is lora")
    return notes


def _delta(config: ExperimentConfig) -> dict[str, Any]:
    return config_delta(dataclasses.asdict(config), dataclasses.asdict(typed_config({})))


def refuse_edited(
    folder: Path,
    facts: Mapping[str, Any],
    config: ExperimentConfig,
    base: BaseRun | None = None,
    candidate: str | None = None,
) -> None:
    """Raise ConfigError where the config of a run is not the one of the signature in its run.json.

    facts: of run.json. base, candidate: as of signature_of.
    """
    delta, found = signature_of(config, base, candidate)
    if found == facts["signature"]:
        return
    began = read_config_diff(folder)
    names = sorted(name for name in delta.keys() | began.keys() if not cannot_change_a_number(name))
    apart = [name for name in names if canonical(delta.get(name)) != canonical(began.get(name))]
    said = [f"{name}: {_said(delta, name)} now, {_said(began, name)} when it began" for name in apart[:3]]
    said += [f"and {len(apart) - 3} more"] if len(apart) > 3 else []
    raise ConfigError(
        f"{folder}: config.yaml is not the config that the run began with ({'; '.join(said) or 'by its signature'}): "
        "put the old values back, or start a new run"
    )


def _said(delta: Mapping[str, Any], name: str) -> str:
    return str(delta[name])[:60] if name in delta else "the default"


def _is_read(name: str) -> bool:
    """Whether a model that brings its own learning reads a field: no step loop, no loss to weigh."""
    return name in ("training.history", "training.seeds") or not (
        name.startswith("training.") or name.endswith("_weight")
    )
