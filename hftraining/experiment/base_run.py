"""The base model that a fine-tune starts from: a finished run, verified, and asked whether it is the right one."""

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

# What the weights and the scaler were made for; everything else a fine-tune may choose.
FIXED = ("objective.horizons", "objective.quantiles", "objective.label", "objective.relative", "profit_tracker.lag")


class BaseModelError(ConfigError):
    """A run cannot be started from, or not by this config: what differs, where, what to do, in one line."""


@dataclass(frozen=True)
class BaseModel:
    """A base run: its forecaster (with universe and days), its config.yaml as nested values, and what identifies it.

    weights: sha256 of its model.safetensors. fingerprint: of the bars that it learned from.
    """

    folder: Path
    forecaster: Forecaster
    config: dict[str, Any]
    signature: str
    weights: str
    fingerprint: str

    @classmethod
    def open(cls, folder: Path, device: str = "cpu") -> "BaseModel":
        """Read a base run and verify its model by its checksums. Nothing in its folder is changed.

        folder: of the run, or the model or checkpoints folder in it. Raises BaseModelError.
        """
        if folder.name in ("model", "checkpoints") and (folder.parent / "run.json").is_file():
            folder = folder.parent
        if not (folder / "run.json").is_file():
            raise BaseModelError(f"init_from={folder} is not a run: give its folder, outputs/base/NAME/DATE_TIME")
        if not (folder / "result.json").is_file():
            raise BaseModelError(f"init_from={folder} is not finished: python train.py resume={folder} finishes it")
        try:
            facts = json.loads((folder / "run.json").read_text())
            config = yaml.safe_load((folder / "config.yaml").read_text())
            forecaster = Forecaster.load(folder / "model", device)
            weights = sha256(folder / "model" / WEIGHTS)
            base = cls(folder, forecaster, config, facts["signature"], weights, facts["data"]["fingerprint"])
            further = config.get("init_from")
        except ModelFolderError as error:
            raise BaseModelError(f"init_from={folder}: {error}") from error
        except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise BaseModelError(
                f"init_from={folder} cannot be read as a run: {' '.join(str(error).split())}"
            ) from error
        if further:
            raise BaseModelError(f"init_from={folder} is fine-tuned itself: start from its base, init_from={further}")
        return base

    @property
    def identity(self) -> dict[str, str]:
        """What of the base can change a number, by dotted names, for a signature; its path cannot."""
        return {"base.signature": self.signature, "base.weights": self.weights}

    def refuse_other(self, config: Mapping[str, Any]) -> None:
        """Raise BaseModelError where a config asks for another model or another task than the base has.

        config: nested values. model.name is only a name; all other fields of the model are the base's.
        """
        theirs, ours = flatten(self.config), flatten(config)
        theirs |= {f"model.{name}": value for name, value in vars(self.forecaster.model.config).items()}
        theirs |= {"objective.horizons": list(self.forecaster.horizons)}
        theirs |= {"objective.quantiles": list(self.forecaster.levels)}
        names = [name for name in ours if name.startswith("model.") and name != "model.name"] + list(FIXED)
        differing = [name for name in names if ours[name] != theirs.get(name)]
        unlike = [f"{name}={ours[name]} where the base has {theirs.get(name)}" for name in differing]
        if unlike:
            raise BaseModelError(
                f"init_from={self.folder}: {'; '.join(unlike)}: leave it out, or train another base model"
            )

    def refuse_seen_days(self, valid_first: str, test_first: str) -> None:
        """Raise BaseModelError where a fine-tune would be judged on days that the base has seen. ISO dates.

        Labels of the base's last training days reach to its first validation day; its validation days chose its step.
        """
        for name, day, use in (("valid", valid_first, "trained on"), ("test", test_first, "chosen on")):
            until = self.forecaster.days[name][0]
            if day < until:
                raise BaseModelError(
                    f"stocks.{name}_start: these days would begin at {day}, but the base model of {self.folder} was "
                    f"{use} days until {until}: leave it out (the base's is inherited) or give a later day"
                )
