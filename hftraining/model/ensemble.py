"""The Ensemble: several forecasters and their weights, which forecast as one; saved and loaded as a folder of theirs.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from hftraining.core.bars import Bars
from hftraining.core.files import sha256, write_json_atomically
from hftraining.core.forecast import Forecast, weighted_mean
from hftraining.core.tensor_file import TENSORS_MOST
from hftraining.core.untrusted import SMALL, Untrusted, digest, is_there, refuse_links, shown
from hftraining.market.features.table import Features, make_features
from hftraining.market.frames import bars_of
from hftraining.model.base import Forecaster, warn_of_missing
from hftraining.model.folder import CONFIG, ModelFolderError, read_config, read_facts
from hftraining.runs.manifest import Sha256, first_wrong

KIND = "ensemble"  # in config.json, where a model of one kind has none
FORMAT = 1  # of the folder of an ensemble
MEMBERS = "members"  # the folder of its models
MOST_MEMBERS = 100
SUM_OFF = 1e-9  # how far from 1 rounding may leave the sum of weights


@dataclass(frozen=True)
class Ensemble:
    """Forecasters of any kinds that forecast the same horizons, quantiles and kind of label, and their weights.

    weights: one a member, not negative, of sum 1. A member of weight 0 is not asked. members may learn from other
    features, and may have learned from other stocks: features such as the market's return are means over the bars that
    are forecast, for every member alike. Raises ValueError for members or weights that do not fit each other.
    """

    members: tuple[Forecaster, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse members that do not forecast the same, and weights that are none."""
        if not 1 <= len(self.members) <= MOST_MEMBERS:
            raise ValueError(f"an ensemble has 1 to {MOST_MEMBERS} members, not {len(self.members)}")
        _check_weights(self.weights, len(self.members))
        refuse_unlike(self.members)

    @classmethod
    def of(cls, predictors: "Sequence[Predictor]", weights: Sequence[float] | None = None) -> "Ensemble":
        """The ensemble of forecasters and ensembles, whose members become members by the product of the weights.

        weights: not negative, at least one of them positive, of any sum; None: equal ones. Raises ValueError.
        """
        if not predictors:
            raise ValueError("there are no models to average")
        given = [1.0] * len(predictors) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(predictors):
            raise ValueError(f"there are {len(given)} weights for {len(predictors)} models")
        if not all(weight >= 0.0 for weight in given) or not 0.0 < sum(given) < math.inf:
            raise ValueError(f"weights={given} must be finite, not negative, and not all 0")
        refuse_unlike(predictors)
        parts = [
            (member, weight / sum(given) * share)
            for predictor, weight in zip(predictors, given, strict=True)
            for member, share in _parts(predictor)
        ]
        return cls(tuple(member for member, _ in parts), tuple(weight for _, weight in parts))

    @property
    def kind(self) -> str:
        """`ensemble`, where a forecaster has the kind of its model."""
        return KIND

    @property
    def horizons(self) -> tuple[int, ...]:
        """Of every member."""
        return self.members[0].horizons

    @property
    def levels(self) -> tuple[float, ...]:
        """Of every member's quantiles."""
        return self.members[0].levels

    @property
    def relative(self) -> str:
        """What every member's labels were relative to."""
        return self.members[0].relative

    @property
    def device(self) -> str:
        """Of the first member."""
        return self.members[0].device

    @property
    def symbols(self) -> tuple[str, ...]:
        """The stocks that any member has learned from, each once."""
        return tuple(dict.fromkeys(symbol for member in self.members for symbol in member.symbols))

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that any member forecasts from, each once."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.columns))

    @property
    def receptive_field(self) -> int:
        """The longest of its members."""
        return max(member.receptive_field for member in self.members)

    @property
    def size(self) -> int:
        """How many numbers all members have learned together."""
        return sum(member.size for member in self.members)

    @property
    def looks_across(self) -> bool:
        """Whether the stocks of any member see each other."""
        return any(member.looks_across for member in self.members)

    @property
    def days(self) -> dict[str, tuple[str, str]]:
        """train: days that any member was trained on, or lie between. valid: validation days of all. test: as of each.

        Days that are validation days of one member and test days of another are neither. A period without a day is not
        named; nothing is where a member does not know its days.
        """
        known = [member.days for member in self.members]
        if not all(days.keys() >= {"train", "valid", "test"} for days in known):
            return {}
        first = {name: [days[name][0] for days in known] for name in ("train", "valid", "test")}
        last = {name: [days[name][1] for days in known] for name in ("train", "valid", "test")}
        found = {
            "train": (min(first["train"]), max(last["train"])),
            "valid": (max(first["valid"]), min(last["valid"])),
            "test": (max(first["test"]), min(last["test"])),
        }
        return {name: ends for name, ends in found.items() if ends[0] <= ends[1]}

    def forecast(self, bars: Bars | pd.DataFrame) -> Forecast:
        """The weighted mean of the members' forecasts, see Forecaster.forecast and core.forecast.weighted_mean.

        A value is NaN where any member's with a weight is: the positions, if one of them has none of its own.
        """
        bars = bars_of(bars)
        warn_of_missing(self.symbols, bars)
        # Members may see different features; each set is made once.
        made: dict[tuple[str, ...], Features] = {}
        for member, _ in self._asked():
            if member.columns not in made:
                made[member.columns] = make_features(bars, member.columns)
        forecasts = (member.forecast_features(made[member.columns], bars.symbols_S) for member, _ in self._asked())
        return weighted_mean(forecasts, [weight for _, weight in self._asked()])

    def forecast_features(self, features: Features, symbols_S: Sequence[str], begin: int = 0) -> Forecast:
        """As forecast, from the features of the bars of some symbols, for the sessions from row `begin` on.

        Raises ValueError for other features than every member has learned from.
        """
        forecasts = (member.forecast_features(features, symbols_S, begin) for member, _ in self._asked())
        return weighted_mean(forecasts, [weight for _, weight in self._asked()])

    def save(self, folder: Path) -> None:
        """Write each member into members/NN of a folder, made if absent, and config.json with their checksums last."""
        names = [f"{MEMBERS}/{number:02d}" for number in range(len(self.members))]
        for name, member in zip(names, self.members, strict=True):
            member.save(folder / name)
        facts = {
            "kind": KIND,
            "format": FORMAT,
            "members": names,
            "weights": self.weights,
            "sha256": [sha256(folder / name / CONFIG) for name in names],
        }
        write_json_atomically(folder / CONFIG, facts)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Ensemble":
        """Read what save wrote; nothing outside of the folder is read. Every member is checked before one is loaded.

        Raises ModelFolderError for a folder that is incomplete, damaged or too large, and MissingDependency for a kind
        of model whose library is not installed.
        """
        try:
            refuse_links(folder)
        except Untrusted as error:
            raise ModelFolderError(str(error)) from None
        facts = _read(folder)
        places = [folder / name for name in facts.members]
        for place, wanted in zip(places, facts.sha256, strict=True):
            if not is_there(place / CONFIG):
                raise ModelFolderError(f"{place / CONFIG} is missing: not a whole ensemble")
            if read_config(place / CONFIG).get("kind") == KIND:
                raise ModelFolderError(f"{place} is an ensemble itself: the members of an ensemble are models")
            if digest(place / CONFIG, SMALL) != wanted:
                raise ModelFolderError(f"{place / CONFIG} is damaged: its sha256 is not the one in {folder / CONFIG}")
        _refuse_large(folder)
        said = [read_facts(place) for place in places]
        try:
            members = tuple(
                Forecaster.of_facts(place, *known, device) for place, known in zip(places, said, strict=True)
            )
            return cls(members, tuple(facts.weights))
        except ModelFolderError:
            raise
        except ValueError as error:
            raise ModelFolderError(f"{folder}: {shown(error, 300)}") from None

    def _asked(self) -> list[tuple[Forecaster, float]]:
        return [pair for pair in zip(self.members, self.weights, strict=True) if pair[1] > 0.0]


Predictor = Forecaster | Ensemble  # whatever forecasts: all that takes a run's model takes either


def load_predictor(folder: Path, device: str = "cpu") -> Predictor:
    """The forecaster or ensemble of a model folder. Raises as Forecaster.load and Ensemble.load."""
    if read_config(folder / CONFIG).get("kind") == KIND:
        return Ensemble.load(folder, device)
    return Forecaster.load(folder, device)


def members_of(predictor: Predictor) -> tuple[Forecaster, ...]:
    """The members of an ensemble; a forecaster is its own."""
    return predictor.members if isinstance(predictor, Ensemble) else (predictor,)


def refuse_unlike(models: "Sequence[Predictor]") -> None:
    """Raise ValueError, naming the first model that forecasts other horizons, quantiles or labels than the first."""
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for what, ours, theirs in (
            ("horizons", model.horizons, first.horizons),
            ("quantiles", model.levels, first.levels),
            ("labels", (model.relative,), (first.relative,)),
        ):
            if ours != theirs:
                shown_ours, shown_theirs = _without(ours, theirs), _without(theirs, ours)
                raise ValueError(
                    f"model {number} has other {what} than the first: {shown_ours} where the first has {shown_theirs}"
                )


def _parts(predictor: Predictor) -> list[tuple[Forecaster, float]]:
    if isinstance(predictor, Ensemble):
        return list(zip(predictor.members, predictor.weights, strict=True))
    return [(predictor, 1.0)]


def _check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count:
        raise ValueError(f"there are {len(weights)} weights for {count} members")
    if not all(0.0 <= weight <= 1.0 for weight in weights):
        raise ValueError(f"the weights {_listed(weights)} must lie in [0, 1]")
    if not abs(math.fsum(weights) - 1.0) <= SUM_OFF:
        raise ValueError(f"the weights {_listed(weights)} sum to {math.fsum(weights):.6g}, not to 1")


def _check_facts(facts: "_Facts") -> "_Facts":
    _check_weights(facts.weights, len(facts.members))
    if facts.members != [f"{MEMBERS}/{number:02d}" for number in range(len(facts.members))]:
        raise ValueError(f"members={shown(facts.members)} are not {MEMBERS}/00, {MEMBERS}/01, ... in this order")
    if len(facts.sha256) != len(facts.members):
        raise ValueError(f"there are {len(facts.sha256)} checksums for {len(facts.members)} members")
    return facts


@dataclass
class _Facts:
    """The schema of an ensemble's config.json."""

    kind: str
    format: int
    members: Annotated[
        list[Annotated[str, Field(strict=True, max_length=20)]], Field(min_length=1, max_length=MOST_MEMBERS)
    ]
    weights: Annotated[list[Annotated[float, Field(strict=True)]], Field(max_length=MOST_MEMBERS)]
    sha256: Annotated[list[Sha256], Field(max_length=MOST_MEMBERS)]


_FACTS: TypeAdapter[_Facts] = TypeAdapter(Annotated[_Facts, AfterValidator(_check_facts)])


def _read(folder: Path) -> _Facts:
    config: dict[str, Any] = read_config(folder / CONFIG)
    if (found := config.get("format")) != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        what = "was written by a newer version: update hftraining" if newer else "is not one of ours: make it again"
        raise ModelFolderError(f"{folder}: ensemble format {shown(found)}, where this version reads {FORMAT}, {what}")
    try:
        return _FACTS.validate_python(config)
    except ValidationError as error:
        raise ModelFolderError(f"{folder / CONFIG} cannot be read as an ensemble: {first_wrong(error)}") from None


def _refuse_large(folder: Path) -> None:
    """Refuse members that are more together than one model may be, before any is loaded."""
    held = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    if held > TENSORS_MOST:
        raise ModelFolderError(
            f"{folder} holds {held:,} bytes, the most is {TENSORS_MOST:,}: it is no ensemble of ours"
        )


def _without(some: Sequence[object], others: Sequence[object]) -> str:
    return _listed([item for item in some if item not in others]) or "no other"


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
