"""The `model` and `objective` groups: the kind and shape of a model, and what its training minimises."""

import itertools
from dataclasses import dataclass, field, fields

from hftraining.core.errors import did_you_mean
from hftraining.core.relative import KINDS as KINDS_OF_LABEL

KINDS = ("transformer", "ridge", "lightgbm")
HEADLESS = ("ridge", "lightgbm")  # without a position of their own
WEIGHTS = "model.safetensors"  # every kind of model writes it
LABELS = ("open", "close")
LOSSES = ("pinball", "mse", "ic")
IC_SYMBOLS = 3  # at least: of two, a correlation is 1 or -1 whatever they are
RELATIVE = ("auto", *KINDS_OF_LABEL)
DEFAULT_RELATIVE, RELATIVE_FROM = "zscore", 10  # what `auto` is, and the symbols from which on it is
MOST_BYTES = 10**10  # of a transformer's weights; training needs four times as much
_MOST = {"num_layers": 1_000, "context": 100_000}
_MOST_WEIGHT, _MOST_HORIZON, _MOST_LEVELS = 1e6, 10_000, 99


@dataclass
class ModelConfig:
    """A kind of model. The fields after `kind` shape the transformer; other kinds refuse them."""

    name: str = "small"
    kind: str = "transformer"  # transformer, ridge or lightgbm
    hidden_size: int = 64  # width; a multiple of 2 * num_heads
    num_layers: int = 3  # higher fits more and learns more slowly
    num_heads: int = 4  # of attention; hidden_size is a multiple of twice their number
    context: int = 64  # bars that one layer sees, today included
    dropout: float = 0.2  # higher fits the training days less
    cross_asset: bool = False  # attention across the symbols of one session

    def __post_init__(self) -> None:
        """Refuse unknown kinds, and shapes that cannot be built."""
        if self.kind not in KINDS:
            hint = did_you_mean(self.kind, KINDS)
            raise ValueError(f"model.kind={self.kind} is not one of {', '.join(KINDS)}{hint}")
        if self.kind != "transformer":
            for entry in fields(self):
                name, value = entry.name, getattr(self, entry.name)
                if name not in ("name", "kind") and value != entry.default:
                    what = f"belongs to model.kind=transformer, not {self.kind}: leave it out"
                    raise ValueError(f"model.{name}={value} {what}")
        for name in ("hidden_size", "num_layers", "num_heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at most {most:,}")
        about = (
            12 * 4 * self.hidden_size**2 * self.num_layers
        )  # four projections and two layers of four times the width
        if about > MOST_BYTES:
            raise ValueError(
                f"model.hidden_size={self.hidden_size} and num_layers={self.num_layers} would be weights of about "
                f"{about:.1e} bytes, more than {MOST_BYTES:.0e}: choose a smaller model"
            )
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"model.hidden_size={self.hidden_size} does not divide into num_heads={self.num_heads} heads of even "
                f"width: try hidden_size={2 * self.num_heads * max(1, round(self.hidden_size / self.num_heads / 2))}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"model.dropout={self.dropout} must lie in [0, 1)")


@dataclass
class ObjectiveConfig:
    """What training minimises: forecast_weight * forecast loss - profit_weight * net Sharpe."""

    name: str = "mixed"
    forecast_weight: float = 1.0  # of the loss of the forecasts; 0 trains the position head alone
    profit_weight: float = 0.02  # higher moves the position head, and the trunk, towards profit after costs
    loss: str = "pinball"  # of all quantiles; mse or ic (correlation across the stocks of a day) of the median
    horizons: list[int] = field(default_factory=lambda: [5, 20])  # sessions
    quantiles: list[float] = field(default_factory=lambda: [0.1, 0.25, 0.5, 0.75, 0.9])  # rising, 0.5 among them
    label: str = "open"  # open: what a decision can earn; close: close to close, which cannot be traded, to compare
    relative: str = "auto"  # none, mean, zscore, rank, residual: returns beside the stocks of the day, see make_labels

    def __post_init__(self) -> None:
        """Refuse an objective without a task, or with a malformed one."""
        for name in ("forecast_weight", "profit_weight"):
            if not getattr(self, name) <= _MOST_WEIGHT:  # NaN, too
                raise ValueError(f"objective.{name}={getattr(self, name)} must be at most {_MOST_WEIGHT:,.0f}")
        if self.forecast_weight < 0 or self.profit_weight < 0 or self.forecast_weight + self.profit_weight == 0:
            raise ValueError(
                f"objective.forecast_weight={self.forecast_weight} and profit_weight={self.profit_weight} "
                "must not be negative, and one must be positive"
            )
        if not self.horizons or min(self.horizons) < 1 or not _rises(self.horizons):
            raise ValueError(f"objective.horizons={self.horizons} must be rising numbers of sessions, e.g. [5,20]")
        if max(self.horizons) > _MOST_HORIZON:
            raise ValueError(
                f"objective.horizons: {max(self.horizons)} sessions are more than any data have, at most "
                f"{_MOST_HORIZON:,}"
            )
        levels = self.quantiles
        if not levels or not 0 < levels[0] or not levels[-1] < 1 or not _rises(levels) or 0.5 not in levels:
            raise ValueError(f"objective.quantiles={levels} must rise within (0, 1) and contain 0.5")
        if len(levels) > _MOST_LEVELS:
            raise ValueError(f"objective.quantiles names {len(levels)} levels: at most {_MOST_LEVELS}")
        if len(levels) < 3:
            raise ValueError(
                f"objective.quantiles={levels} needs one below and one above 0.5: they give the uncertainty"
            )
        if self.label not in LABELS:
            raise ValueError(f"objective.label={self.label} is not one of {', '.join(LABELS)}")
        if self.loss not in LOSSES:
            hint = did_you_mean(self.loss, LOSSES)
            raise ValueError(f"objective.loss={self.loss} is not one of {', '.join(LOSSES)}{hint}")
        if self.relative not in RELATIVE:
            hint = did_you_mean(self.relative, RELATIVE)
            raise ValueError(f"objective.relative={self.relative} is not one of {', '.join(RELATIVE)}{hint}")


def relative_of(objective: ObjectiveConfig, n_symbols: int) -> str:
    """The kind of label: `auto` is none below RELATIVE_FROM symbols, which are too few to compare, else the default."""
    if objective.relative != "auto":
        return objective.relative
    return DEFAULT_RELATIVE if n_symbols >= RELATIVE_FROM else "none"


def count_weights(config: ModelConfig, n_features: int, n_outputs: int) -> int:
    """How many weights the transformer of a config has, without building it. n_outputs: horizons times quantiles."""
    width = config.hidden_size
    attention = 4 * width**2 + 5 * width  # with its norm
    mlp = 8 * width**2 + 6 * width
    block = attention * (2 if config.cross_asset else 1) + mlp
    return (n_features + 1) * width + config.num_layers * block + width + (n_outputs + 1) * (width + 1)


def _rises(values: list[int] | list[float]) -> bool:
    return all(low < high for low, high in itertools.pairwise(values))
