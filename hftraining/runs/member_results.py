"""What result.json holds of the members of an ensemble."""

from dataclasses import dataclass, field

from hftraining.runs.quantities import Count, Ends, Estimate, Metrics, Number, Score, Text, Word


@dataclass
class MemberPeriod:
    """What one member of an ensemble comes to by itself in a period, traded as the ensemble is.

    ic: of its median at the traded horizon. alpha: against buy and hold, a year, a fraction. marginal: the ensemble's
    Sharpe ratio less that of the ensemble without this member; None where there is no other member.
    """

    profit: Metrics = field(default_factory=dict)
    interval: Ends = field(default_factory=list)  # of its Sharpe ratio
    loss: Number = None
    ic: Score | None = None
    alpha: Estimate | None = None
    marginal: Estimate | None = None


@dataclass
class MemberResult:
    """One member of an ensemble. folder: of its run. parameters: how many numbers it has learned."""

    name: Word
    weight: Number
    kind: Word
    folder: Text = ""
    parameters: Count | None = None
    periods: dict[Word, MemberPeriod] = field(default_factory=dict)


@dataclass
class Correlations:
    """Between the members, in their order, over all stocks and days of a period on which all are known.

    errors: of median less outcome. forecasts: of the medians.
    """

    errors: list[list[Number]] = field(default_factory=list)
    forecasts: list[list[Number]] = field(default_factory=list)


@dataclass
class EnsembleResult:
    """An ensemble: how its weights were found, its members, and how alike they are, by period.

    in_sample: whether the weights were fitted to the validation days, so that figures on these may be too good.
    """

    weighting: Text
    in_sample: bool = False
    members: list[MemberResult] = field(default_factory=list)
    correlations: dict[Word, Correlations] = field(default_factory=dict)
