"""The `model` and `objective` groups: the kind and shape of a model, and what its training minimises."""

import itertools
import math
from dataclasses import dataclass, field, fields

from hftraining.core.errors import did_you_mean
from hftraining.core.relative import KINDS as KINDS_OF_LABEL

WINDOWED = ("linear", "mlp", "lstm", "patchtst")  # see model/windowed.py
NETWORKS = ("transformer", *WINDOWED)  # the Trainer trains them
HEADLESS = ("ridge", "lightgbm")  # bring their own learning, and no position of their own
KINDS = (*NETWORKS, *HEADLESS)
READ_BY = {  # field of the model -> kinds; every kind reads the others
    "hidden_size": ("transformer", "mlp", "lstm", "patchtst"),
    "num_layers": ("transformer", "mlp", "lstm", "patchtst"),
    "num_heads": ("transformer", "patchtst"),
    "context": NETWORKS,
    "dropout": ("transformer", "mlp", "lstm", "patchtst"),
    "cross_asset": ("transformer",),
    "symbol_embedding": ("transformer", "mlp", "lstm", "patchtst"),
    "patch_length": ("patchtst",),
    "stride": ("patchtst",),
    "channel_independent": ("patchtst",),
}
WEIGHTS = "model.safetensors"  # every kind of model writes it
LABELS = ("open", "close")
LOSSES = ("pinball", "mse", "ic")
IC_SYMBOLS = 3  # at least: of two, a correlation is 1 or -1 whatever they are
RELATIVE = ("auto", *KINDS_OF_LABEL)
DEFAULT_RELATIVE, RELATIVE_FROM = "zscore", 10  # what `auto` is, and the symbols from which on it is
MOST_BYTES = 10**10  # of a network's weights; training needs four times as much
MOST_WINDOW, MOST_PATCHES = 1_000, 256  # bars and patches that are read anew for each forecast
_MOST = {"num_layers": 1_000, "context": 100_000}
_MOST_WEIGHT, _MOST_HORIZON, _MOST_LEVELS = 1e6, 10_000, 99


@dataclass
class ModelConfig:
    """A kind of model and its shape. A kind refuses the fields that it does not read: see READ_BY."""

    name: str = "small"
    kind: str = "transformer"  # transformer, linear, mlp, lstm, patchtst, ridge or lightgbm
    hidden_size: int = 64  # width; of a transformer a multiple of 2 * num_heads, of patchtst of num_heads
    num_layers: int = 3  # higher fits more and learns more slowly
    num_heads: int = 4  # of attention; transformer and patchtst
    context: int = 64  # bars seen, today included, by a layer of a transformer, or all of another kind; 1: today alone
    dropout: float = 0.2  # higher fits the training days less
    cross_asset: bool = False  # transformer: attention across the symbols of one session
    symbol_embedding: bool = False  # a learned vector for each symbol of the universe
    patch_length: int = 8  # patchtst: bars of a patch
    stride: int = 8  # patchtst: bars from patch to patch, at most patch_length
    channel_independent: bool = False  # patchtst: each feature by itself, at the cost of as many passes

    def __post_init__(self) -> None:
        """Refuse unknown kinds, and shapes that cannot be built."""
        if self.kind not in KINDS:
            hint = did_you_mean(self.kind, KINDS)
            raise ValueError(f"model.kind={self.kind} is not one of {', '.join(KINDS)}{hint}")
        for entry in fields(self):
            name, value = entry.name, getattr(self, entry.name)
            readers = READ_BY.get(name, KINDS)
            if self.kind not in readers and value != entry.default:
                whose = " or ".join(filter(None, (", ".join(readers[:-1]), readers[-1])))
                raise ValueError(f"model.{name}={value} belongs to model.kind={whose}, not {self.kind}: leave it out")
        most = _MOST | ({"context": MOST_WINDOW} if self.kind in WINDOWED else {})
        for name in ("hidden_size", "num_layers", "num_heads", "context", "patch_length", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
            if self.kind in READ_BY[name] and getattr(self, name) > most.get(name, math.inf):
                raise ValueError(f"model.{name}={getattr(self, name)} must be at most {most[name]:,}")
        about = 4 * count_weights(self, 1, 1)
        if about > MOST_BYTES:
            raise ValueError(
                f"model.hidden_size={self.hidden_size} and num_layers={self.num_layers} would be weights of about "
                f"{about:.1e} bytes, more than {MOST_BYTES:.0e}: choose a smaller model"
            )
        self._check_heads()
        if self.kind == "patchtst":
            self._check_patches()
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"model.dropout={self.dropout} must lie in [0, 1)")

    @property
    def n_patches(self) -> int:
        """How many patches of patchtst a window of `context` bars has."""
        return (self.context - self.patch_length) // self.stride + 1

    def _check_heads(self) -> None:
        """Heads divide the width; those of the transformer are even, since its positions turn pairs of numbers."""
        if self.kind not in READ_BY["num_heads"]:
            return
        whole, what = (2, "heads of even width") if self.kind == "transformer" else (1, "heads")
        whole *= self.num_heads
        if self.hidden_size % whole:
            raise ValueError(
                f"model.hidden_size={self.hidden_size} does not divide into num_heads={self.num_heads} {what}: "
                f"try hidden_size={whole * max(1, round(self.hidden_size / whole))}"
            )

    def _check_patches(self) -> None:
        length, stride, context = self.patch_length, self.stride, self.context
        if length > context:
            raise ValueError(f"model.patch_length={length} must be at most context={context}")
        if stride > length:
            raise ValueError(f"model.stride={stride} must be at most patch_length={length}, or bars would be left out")
        if (context - length) % stride:
            fits = length + stride * round((context - length) / stride)
            raise ValueError(
                f"model.context={context} is not patch_length={length} plus a multiple of stride={stride}: "
                f"try context={fits}"
            )
        if self.n_patches > MOST_PATCHES:
            raise ValueError(
                f"model.stride={stride} gives {self.n_patches} patches in context={context}, more than {MOST_PATCHES}"
            )


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


def count_weights(config: ModelConfig, n_features: int, n_outputs: int, n_symbols: int = 0) -> int:
    """How many weights a network of a config has, without building it; 0 for a kind that is no network.

    n_outputs: horizons times quantiles. n_symbols: of the universe.
    """
    if config.kind not in NETWORKS:
        return 0
    width, layers, read = config.hidden_size, config.num_layers, config.context * n_features
    attention = 4 * width**2 + 5 * width  # with its norm
    block = attention + 8 * width**2 + 6 * width
    if config.kind == "linear":
        body, width = 0, read
    elif config.kind == "mlp":
        body = (read + 2) * width + (layers - 1) * (width + 2) * width
    elif config.kind == "lstm":
        body = (n_features + 1) * width + layers * 8 * (width + 1) * width + width
    elif config.kind == "patchtst":
        series = n_features if config.channel_independent else 1
        inputs, tokens = n_features // series, 1 + config.n_patches
        body = ((config.patch_length + 2) * inputs + 2 + tokens) * width + layers * block + width
        width = series * tokens * width
    else:
        across = attention + width if config.cross_asset else 0  # with its gate
        body = (n_features + 1) * width + layers * (block + across) + width
    symbols = n_symbols * config.hidden_size if config.symbol_embedding else 0
    return body + (n_outputs + 1) * (width + 1) + symbols


def _rises(values: list[int] | list[float]) -> bool:
    return all(low < high for low, high in itertools.pairwise(values))
