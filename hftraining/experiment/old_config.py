"""Config files of earlier versions, said in the fields of this one."""

from pathlib import Path
from typing import Any

from hftraining.core.errors import ConfigError
from hftraining.core.relative import in_words

_AS_BEFORE = {"smoothing": 0.0, "trade_rate": 1.0}  # what policies did: all of the way, each day


def in_todays_fields(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a config.yaml in today's fields, with the same meaning; those of today come back as they are.

    Until the group `portfolio` there was, the group `profit_tracker` held a policy, and `sample` was of five stocks.
    objective.relative was true or false: returns less the mean of the day's stocks, or not.
    path: of the file, for messages. Raises ConfigError for a policy that is gone.
    """
    objective = values.get("objective")
    if isinstance(objective, dict) and "relative" in objective:
        values = values | {"objective": objective | {"relative": in_words(objective["relative"])}}
    tracker = values.get("profit_tracker")
    if not isinstance(tracker, dict) or "policy" not in tracker or "portfolio" in values:
        return values
    tracker = dict(tracker)
    policy, _ = tracker.pop("policy"), tracker.pop("top_k", None)
    if policy == "top_k":
        raise ConfigError(f"{path}: profit_tracker.policy=top_k is gone: train again with portfolio=long_short")
    portfolio = {"name": policy, "kind": policy, **_AS_BEFORE}
    portfolio |= {name: tracker.pop(name) for name in ("horizon", "full_size_at") if name in tracker}
    values = values | {"profit_tracker": tracker, "portfolio": portfolio}
    stocks = values.get("stocks")
    if isinstance(stocks, dict) and stocks.get("source") == "sample":
        values["stocks"] = stocks | {"source": "sample5"}
    return values
