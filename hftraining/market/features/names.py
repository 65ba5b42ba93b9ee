"""The names of all features, light enough for `--help`: the sets of this package, ranks, and those of others.

registry.py holds what they mean; a test holds that it registers these names and no others.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from hftraining.core.errors import UserError, did_you_mean
from hftraining.core.values import printable

GROUP = "hftraining.features"  # of the entry points by which an installed package adds features
RANK = "_rank"  # what the name of a feature's rank among the stocks of the day ends with
MOST_COLUMNS = 1000  # of a set

BASIC = (
    "return_1d",
    "gap",
    "intraday",
    "range",
    "close_in_range",
    "relative_volume",
    "volatility",
    "momentum_5",
    "momentum_21",
    "momentum_63",
    "momentum_252",
    "market_return",
    "market_momentum_21",
    "relative_return",
    "relative_momentum_21",
)
ALPHA158_WINDOWS = (5, 10, 20, 30, 60)
_BARS = ("KMID", "KLEN", "KMID2", "KUP", "KUP2", "KLOW", "KLOW2", "KSFT", "KSFT2", "OPEN0", "HIGH0", "LOW0")
_ROLLING = (
    "ROC", "MA", "STD", "BETA", "RSQR", "RESI", "MAX", "MIN", "QTLU", "QTLD", "RANK", "RSV", "IMAX", "IMIN", "IMXD",
    "CORR", "CORD", "CNTP", "CNTN", "CNTD", "SUMP", "SUMN", "SUMD", "VMA", "VSTD", "WVMA", "VSUMP", "VSUMN", "VSUMD",
)  # fmt: skip
ALPHA158 = (*_BARS, *(f"{name}{window}" for name in _ROLLING for window in ALPHA158_WINDOWS))  # in qlib's order
WIDE_BASES = (
    "return_1d",
    "momentum_5",
    "momentum_21",
    "momentum_63",
    "momentum_252",
    "momentum_252_21",
    "volatility_20",
    "volatility_5_63",
    "volatility",
    "downside_63",
    "skew_63",
    "skew_252",
    "max_return_21",
    "volume_5_63",
    "volume_21_252",
    "volume_volatility_63",
    "volume_return_63",
    "range_21_252",
    "close_in_range_21",
    "overnight_21",
    "intraday_21",
    "to_high_21",
    "to_high_252",
    "to_low_21",
    "to_low_252",
    "beta_63",
    "beta_252",
    "residual_5",
    "residual_21",
    "residual_252",
    "residual_volatility_63",
)
WIDE = (*WIDE_BASES, *(f"{name}{RANK}" for name in WIDE_BASES))
OURS = frozenset((*BASIC, *WIDE_BASES, *ALPHA158))


class FeatureError(UserError):
    """A feature cannot be used: which, why, in one line."""


@cache
def foreign() -> dict[str, EntryPoint]:
    """The features that installed packages offer, by name; none of them is loaded by this. A name of ours stays ours.

    Raises FeatureError where two packages offer one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in found and point.value != found[point.name].value:
            raise FeatureError(
                f"feature {point.name} is offered twice, by {point.value} and {found[point.name].value}: uninstall one"
            )
        found[point.name] = point
    return found


def base_of(name: str) -> str:
    """The feature that a name stands for: the one that is ranked, or the name itself."""
    return name.removesuffix(RANK)


def refuse_unknown(columns: Sequence[str]) -> None:
    """Raise FeatureError, in one line, for names of no feature, a name that comes twice, and for none or too many."""
    if not 1 <= len(columns) <= MOST_COLUMNS:
        raise FeatureError(f"{len(columns)} features: there must be at least 1, and at most {MOST_COLUMNS:,}")
    seen: set[str] = set()
    for name in columns:
        if base_of(name) not in OURS and base_of(name) not in foreign():
            known = [*OURS, *foreign()]
            hint = did_you_mean(name, [*sorted(known), *(f"{base}{RANK}" for base in sorted(known))])
            said = printable(name[:100])  # a model folder of a stranger may hold any name
            raise FeatureError(f"{said} is no feature of this version or of an installed package{hint}")
        if name in seen:
            raise FeatureError(f"{name} is named twice")
        seen.add(name)
