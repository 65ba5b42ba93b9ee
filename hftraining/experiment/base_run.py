"""The base run that a fine-tune starts from: finished, verified, and checked against the config of the fine-tune."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftraining.core.errors import ConfigError, UserError
from hftraining.core.tensor_file import TENSORS_MOST
from hftraining.core.untrusted import digest, is_there, refuse_links, shown
from hftraining.core.values import flatten
from hftraining.experiment.config import plain_values
from hftraining.model.base import Forecaster
from hftraining.model.config import WEIGHTS
from hftraining.model.ensemble import Ensemble, load_predictor
from hftraining.model.folder import PERIODS
from hftraining.model.learner import MissingDependency
from hftraining.runs.folder import MEMBERS_FOLDER
from hftraining.runs.manifest import MANIFEST
from hftraining.runs.record import read_manifest
from hftraining.runs.result import RESULT_FILE

# The weights and the scaler were made for these fields; a fine-tune may choose every other one.
FIXED = (
    "features.columns",
    "objective.horizons",
    "objective.quantiles",
    "objective.label",
    "objective.relative",
    "profit_tracker.lag",
)


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
        if not is_there(folder / MANIFEST):
            raise ConfigError(f"init_from={folder} is not a run: give its folder, outputs/base/NAME/DATE_TIME")
        if not is_there(folder / RESULT_FILE):
            raise ConfigError(f"init_from={folder} is not finished: python train.py resume={folder} finishes it")
        try:
            refuse_links(folder)
            facts = read_manifest(folder)
            config = plain_values(folder / "config.yaml")
            forecaster = load_predictor(folder / "model", device)
            if isinstance(forecaster, Ensemble):
                first = next(iter(sorted((folder / MEMBERS_FOLDER).glob("*"))), folder)
                raise UserError(f"its model is an ensemble: start from one of its members, such as init_from={first}")
            weights = digest(folder / "model" / WEIGHTS, TENSORS_MOST)
        except MissingDependency:
            raise
        except UserError as error:
            raise ConfigError(f"init_from={folder}: {error}") from error
        missing = [name for name in PERIODS if name not in forecaster.days]
        if missing or not forecaster.symbols:
            what = f"the days of {missing[0]}" if missing else "its stocks"
            raise ConfigError(f"init_from={folder}: its model does not say {what}: train another base model")
        if further := config.get("init_from"):
            raise ConfigError(
                f"init_from={folder} is itself a fine-tune: start from its base, init_from={shown(further, 300)}"
            )
        return cls(folder, forecaster, config, facts["signature"], weights, facts["data"]["fingerprint"])

    def refuse_other(self, config: Mapping[str, Any]) -> None:
        """Raise ConfigError where a config asks for another model or another task than the base has.

        config: nested values. model.name is only a name; all other fields of the model are the base's.
        """
        model, ours = self.forecaster, flatten(config)
        theirs = flatten(self.config) | {f"model.{name}": value for name, value in vars(model.model.config).items()}
        theirs |= {"objective.horizons": list(model.horizons), "objective.quantiles": list(model.levels)}
        theirs |= {"objective.relative": model.relative, "features.columns": list(model.scaler.features)}
        if ours["objective.relative"] == "auto":  # whatever the base has
            ours["objective.relative"] = model.relative
        names = [name for name in ours if name.startswith("model.") and name != "model.name"] + list(FIXED)
        differing = [name for name in names if ours[name] != theirs.get(name)]
        if unlike := [f"{name}={ours[name]} where the base has {theirs.get(name)}" for name in differing]:
            raise ConfigError(
                f"init_from={self.folder}: {'; '.join(unlike)}: give the base's value, leave it out, or train another "
                "base model"
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
