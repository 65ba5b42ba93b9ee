"""The config tree of a run: typed, checked, and refused in one line."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import ConfigError, did_you_mean
from hftraining.core.secret import refuse_secrets
from hftraining.core.values import flatten
from hftraining.evidence.config import EvidenceConfig
from hftraining.market.config import StocksConfig
from hftraining.model.config import HEADLESS, ModelConfig, ObjectiveConfig
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.training.config import TrainingConfig

_PACKAGE = Path(__file__).resolve().parents[1]
# The folder of the config groups: within an installed package, or beside the package of a checkout.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


@dataclass
class ExperimentConfig:
    """The tree. Its defaults are what `python train.py` runs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    stocks: StocksConfig = field(default_factory=StocksConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    profit_tracker: ProfitTrackerConfig = field(default_factory=ProfitTrackerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    seed: int = 1
    name: str = "${model.name}-${stocks.name}-${objective.name}"  # names the run folder
    output_dir: str = "outputs"
    resume: str | None = None  # a run folder to resume, under its own config
    init_from: str | None = None  # fine-tune: the run folder of the base model

    @property
    def most_steps(self) -> int:
        """The most steps that a training takes: one for a model that brings its own learning."""
        return 1 if self.model.kind in HEADLESS else self.training.max_steps

    def __post_init__(self) -> None:
        """Refuse combinations of groups that make no sense."""
        tracker, objective = self.profit_tracker, self.objective
        if tracker.horizon and tracker.horizon not in objective.horizons:
            raise ValueError(
                f"profit_tracker.horizon={tracker.horizon} is not one of objective.horizons={objective.horizons}"
            )
        if objective.forecast_weight == 0 and tracker.policy != "head":
            raise ValueError(
                f"profit_tracker.policy={tracker.policy} trades forecasts, but objective.forecast_weight=0 trains "
                "none: use profit_tracker.policy=head"
            )
        if objective.profit_weight == 0 and tracker.policy == "head":
            raise ValueError(
                "profit_tracker.policy=head trades the position head, but objective.profit_weight=0 does not train it: "
                "use objective=mixed or objective=profit"
            )
        if self.model.kind in HEADLESS and tracker.policy == "head":
            raise ValueError(
                f"profit_tracker.policy=head trades the position head, which model.kind={self.model.kind} lacks: "
                "use another policy"
            )
        if self.training.methods and not self.init_from:
            raise ValueError(f"training.methods={self.training.methods} needs a base model: init_from=outputs/base/...")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")


def typed_config(values: Any) -> ExperimentConfig:
    """The checked tree from nested values (a dict or an OmegaConf node).

    Merged onto the dataclass again, so that a key added with `+` is refused, too. Raises ConfigError.
    """
    try:
        plain = OmegaConf.to_container(values, resolve=False) if OmegaConf.is_config(values) else values
        if isinstance(plain, dict):
            refuse_secrets(plain)
        merged = OmegaConf.merge(OmegaConf.structured(ExperimentConfig), plain)
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, ExperimentConfig)
    return config


def load_config(path: Path) -> ExperimentConfig:
    """The config of a run folder's config.yaml."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: resume wants a run folder, e.g. resume=outputs/base/NAME/DATE_TIME")
    try:
        values = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged ({str(error).splitlines()[0]})") from error
    return typed_config(values)


def explain(error: BaseException) -> str:
    """One line for a config error, with a did-you-mean for a key that is close to a known one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))), "")
    full_key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
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
