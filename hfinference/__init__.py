"""A trained run at work: `from hfinference import load_model, average_predictions`."""

from hfinference.ensemble import average_predictions, load_model

__all__ = ["average_predictions", "load_model"]
