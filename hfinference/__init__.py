"""A trained run at work: `from hfinference import load_model, backtest_model, average_predictions, LiveTrader`.

A name is imported when it is first used, so that `python -m hfinference --help` imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfinference.backtest import backtest_model
    from hfinference.ensemble import average_predictions
    from hfinference.evaluation import evaluate
    from hfinference.live.trader import LiveTrader
    from hfinference.trained import load_model
    from hfinference.walking import walk_forward

_PLACES = {  # name -> its file
    "LiveTrader": "live.trader",
    "average_predictions": "ensemble",
    "backtest_model": "backtest",
    "evaluate": "evaluation",
    "load_model": "trained",
    "walk_forward": "walking",
}

__all__ = ["LiveTrader", "average_predictions", "backtest_model", "evaluate", "load_model", "walk_forward"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
