"""The base run that a fine-tune starts from: finished, verified, and checked against the config of the fine-tune."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import ConfigError
from hftraining.core.files import sha256
from hftraining.core.values import flatten
from hftraining.model.base import Forecaster, ModelFolderError
from hftraining.model.config import WEIGHTS

# The weights and the scaler were made for these fields; a fine-tune may choose every other one.
FIXED = ("objective.horizons", "objective.quantiles", "objective.label", "objective.relative", "profit_tracker.lag")


@dataclass(frozen=True)
class BaseRun:
    """A base run: its forecaster (with universe and days), its config.yaml as nested values, and its identity.

    weights: sha256 of its model.safetensors. fingerprint: of the bars that it learned from.
    """

    folder: Path
    forecaster: Forecaster
    config: dict[str, Any]
    signature: str
    weights: str
    fingerprint: str

    @classmethod
    def open(cls, folder: str | Path, device: str = "cpu") -> "BaseRun":
        """Read a base run and verify its model by checksum; nothing in its folder changes. Raises ConfigError.

        folder: of the run, or the model or checkpoints folder in it.
        """
        folder = Path(folder)
        if folder.name in ("model", "checkpoints") and (folder.parent / "run.json").is_file():
            folder = folder.parent
        if not (folder / "run.json").is_file():
            raise ConfigError(f"init_from={folder} is not a run: give its folder, outputs/base/NAME/DATE_TIME")
        if not (folder / "result.json").is_file():
            raise ConfigError(f"init_from={folder} is not finished: python train.py resume={folder} finishes it")
        try:
            facts = json.loads((folder / "run.json").read_text())
            config = yaml.safe_load((folder / "config.yaml").read_text())
            forecaster = Forecaster.load(folder / "model", device)
            weights = sha256(folder / "model" / WEIGHTS)
            base = cls(folder, forecaster, config, facts["signature"], weights, facts["data"]["fingerprint"])
            further = config.get("init_from")
        except ModelFolderError as error:
            raise ConfigError(f"init_from={folder}: {error}") from error
        except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(f"init_from={folder} cannot be read as a run: {' '.join(str(error).split())}") from error
        if further:
            raise ConfigError(f"init_from={folder} is itself a fine-tune: start from its base, init_from={further}")
        return base

    def refuse_other(self, config: Mapping[str, Any]) -> None:
        """Raise ConfigError where a config asks for another model or another task than the base has.

        config: nested values. model.name is only a name; all other fields of the model are the base's.
        """
        model, ours = self.forecaster, flatten(config)
        theirs = flatten(self.config) | {f"model.{name}": value for name, value in vars(model.model.config).items()}
        theirs |= {"objective.horizons": list(model.horizons), "objective.quantiles": list(model.levels)}
        names = [name for name in ours if name.startswith("model.") and name != "model.name"] + list(FIXED)
        differing = [name for name in names if ours[name] != theirs.get(name)]
        if unlike := [f"{name}={ours[name]} where the base has {theirs.get(name)}" for name in differing]:
            raise ConfigError(
                f"init_from={self.folder}: {'; '.join(unlike)}: leave it out, or train another base model"
            )

    def refuse_seen_days(self, valid_first: str, test_first: str) -> None:
        """Raise ConfigError where a fine-tune would be judged on days that the base has seen. ISO dates.

        The labels of the base's last training days reach to its first validation day; its validation days chose its
        step.
        """
        for name, day, use in (("valid", valid_first, "trained on"), ("test", test_first, "chosen on")):
            until = self.forecaster.days[name][0]
            if day < until:
                raise ConfigError(
                    f"stocks.{name}_start: these days would begin at {day}, but the base model of {self.folder} was "
                    f"{use} days until {until}: leave it out (the base's is inherited) or give a later day"
                )
