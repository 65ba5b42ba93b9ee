"""Money first: what was earned and what holding earned, in one sentence."""

import math
from collections.abc import Mapping

from hftraining.runs.quantities import Number

BREAKS_EVEN = 0.0005  # a return nearer to zero than this is written as 0.0 %


def money(metrics: Mapping[str, Number], held: Mapping[str, Number]) -> str:
    """ "It lost 46.3 %, where holding earned 96.1 %."; metrics, held: as `trading.metrics.summarize`.

    held: of buy and hold; the second half is left out where its return is unknown. Empty where the own one is.
    A book with an exposure of 0 took no position.
    """
    ours, theirs = _outcome(metrics.get("total_return")), _outcome(held.get("total_return"))
    if not ours:
        return ""
    if metrics.get("exposure") == 0.0:
        ours = "took no position"
    return f"It {ours}, where holding {theirs}." if theirs else f"It {ours}."


def _outcome(total_return: Number) -> str:
    """ "earned 4.2 %", "lost 4.2 %", "broke even"; empty for an unknown return."""
    if total_return is None or not math.isfinite(total_return):
        return ""
    if abs(total_return) < BREAKS_EVEN:
        return "broke even"
    return f"{'earned' if total_return > 0.0 else 'lost'} {abs(total_return):,.1%}".replace("%", " %")
