"""The caps on position sizes and gross exposure.

Legend: T sessions, S symbols.
"""

import numpy as np

from hftraining.trading.config import TradingRules


def cap_weights(weights_TS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """Finite weights within the caps: no shorts if forbidden, each symbol clipped, then gross cut in proportion."""
    lowest = -rules.max_position_size if rules.allow_short else 0.0
    capped_TS = np.clip(weights_TS, lowest, rules.max_position_size)
    gross_T1 = np.abs(capped_TS).sum(axis=-1, keepdims=True)
    return capped_TS * (rules.max_gross / np.maximum(gross_T1, rules.max_gross))
