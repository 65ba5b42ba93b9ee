"""What the files of earlier versions meant by what they do not say."""

from typing import Any


def with_added_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The config.yaml of a run with the fields that the version before did not write, and the values that it meant."""
    if isinstance(config.get("model"), dict):
        config["model"].setdefault("kind", "transformer")
    stocks = config.get("stocks")
    if isinstance(stocks, dict) and "csv" not in stocks:
        stocks["csv"] = {"separator": ",", "decimal": "."}
        if stocks.get("source") == "sample":  # there was one, which had five stocks
            stocks["source"] = "sample5"
    return config
