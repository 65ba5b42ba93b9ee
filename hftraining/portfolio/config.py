"""The `portfolio` group: how forecasts become target weights."""

import math
from dataclasses import dataclass

from hftraining.core.errors import did_you_mean

KINDS = (
    *("auto", "tilt", "top", "long_short", "core", "timing"),
    *("edge", "sign", "head", "hrp", "mean_variance"),
)
ABSOLUTE = ("timing", "edge", "sign")  # these read the size of a return, so they need absolute forecasts
OPTIMIZED = ("hrp", "mean_variance")  # by skfolio, the extra `portfolio`
WEIGHTINGS = ("equal", "inverse_volatility")
_RANGES = {
    "horizon": (0, 10_000),
    "strength": (0.0, 1e3),
    "fraction": (1e-9, 1.0),
    "keep": (1e-9, 1.0),
    "share": (0.0, 1.0),
    "full_size_at": (1e-12, 1e9),
    "smoothing": (0.0, 1e4),
    "trade_rate": (1e-9, 1.0),
    "every": (1, 10_000),
    "volatility_target": (0.0, 100.0),
    "turnover_penalty": (0.0, 1e3),
    "risk_aversion": (1e-9, 1e6),
}


@dataclass
class PortfolioConfig:
    """From a forecast to target weights; docs/trading.md has the formulas. A field that a kind does not read is kept.

    kind: tilt leans equal weights by the score; top holds the best fraction; long_short the best against the worst;
    core is a share of long_short over equal weights; timing moves one stock between 0 and 1; edge, sign and head take
    each stock alone; hrp and mean_variance are optimised; auto is tilt, or timing where there is one symbol.
    """

    name: str = "default"
    kind: str = "auto"  # auto, tilt, top, long_short, core, timing, edge, sign, head, hrp or mean_variance
    horizon: int = 0  # the forecast horizon traded on, in sessions; 0: the longest
    weighting: str = "equal"  # tilt, top, long_short, core: equal or inverse_volatility
    strength: float = 1.0  # tilt: higher leans further from the base weights
    fraction: float = 0.2  # top, long_short, core: of the stocks of the day, on each side
    keep: float = 0.5  # top: a stock that is held is kept until it falls out of this fraction, at least `fraction`
    share: float = 0.3  # core: of the book that is long_short
    full_size_at: float = 0.1  # edge: forecast / uncertainty at which a position has its full size
    smoothing: float = 20.0  # half-life of the score, in sessions; 0: none. Higher trades less
    trade_rate: float = 0.05  # share of the way to the target that a day trades; 1: all of it
    every: int = 1  # sessions between two rebalances
    volatility_target: float = 0.0  # of the book, a year; 0: none
    turnover_penalty: float = 0.002  # mean_variance: cost of a unit of turnover; higher trades less
    risk_aversion: float = 5.0  # mean_variance: higher holds less risk

    def __post_init__(self) -> None:
        """Refuse a portfolio that does not exist or cannot trade."""
        for name, value, choices in (("kind", self.kind, KINDS), ("weighting", self.weighting, WEIGHTINGS)):
            if value not in choices:
                # Configs of earlier versions have top_k.
                hint = ": it is gone, long_short is nearest" if value == "top_k" else did_you_mean(value, choices)
                raise ValueError(f"portfolio.{name}={value} is not one of {', '.join(choices)}{hint}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                raise ValueError(f"portfolio.{name}={value} must lie in [{least:,}, {most:,}]")
        if self.kind == "top" and self.keep < self.fraction:
            raise ValueError(
                f"portfolio.keep={self.keep} must be at least portfolio.fraction={self.fraction}: a stock that is "
                "bought would be sold at once"
            )


def kind_of(config: PortfolioConfig, n_symbols: int) -> str:
    """The kind that is traded: `auto` is timing for one symbol, else tilt."""
    if config.kind != "auto":
        return config.kind
    return "timing" if n_symbols == 1 else "tilt"
