"""What the config files of earlier versions meant, said in the fields of this one."""

from typing import Any

from hftraining.core.relative import in_words

# The columns that all models had before there was a choice.
_FEATURES = (
    "return_1d gap intraday range close_in_range relative_volume volatility momentum_5 momentum_21 momentum_63 "
    "momentum_252 market_return market_momentum_21 relative_return relative_momentum_21"
).split()
_AS_BEFORE = {"smoothing": 0.0, "trade_rate": 1.0}  # what policies did: all of the way, each day


def in_todays_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The config.yaml of a run in today's fields, with the same meaning; one of today comes back as it is.

    Earlier versions had only transformers, one set of features, one sample, of five stocks, a policy in the group
    `profit_tracker` where there is a portfolio now, and true or false for
    objective.relative: returns less the mean of the day's stocks.
    """
    config = {"features": {"name": "basic", "columns": list(_FEATURES)}} | config
    if isinstance(config.get("model"), dict):
        config["model"] = config["model"] | {"kind": config["model"].get("kind", "transformer")}
    objective, stocks, tracker = (config.get(name) for name in ("objective", "stocks", "profit_tracker"))
    if isinstance(objective, dict) and "relative" in objective:
        config["objective"] = objective | {"relative": in_words(objective["relative"])}
    if isinstance(stocks, dict) and "csv" not in stocks:
        config["stocks"] = stocks | {"csv": {"separator": ",", "decimal": "."}}
        if stocks.get("source") == "sample":
            config["stocks"]["source"] = "sample5"
    if isinstance(tracker, dict) and "policy" in tracker and "portfolio" not in config:
        tracker = dict(tracker)
        tracker.pop("top_k", None)
        policy = tracker.pop("policy")
        portfolio = {"name": policy, "kind": policy, **_AS_BEFORE}
        portfolio |= {name: tracker.pop(name) for name in ("horizon", "full_size_at") if name in tracker}
        config |= {"profit_tracker": tracker, "portfolio": portfolio}
    return config
