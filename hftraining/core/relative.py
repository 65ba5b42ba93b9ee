"""What returns are relative to, in labels and forecasts: the kinds by name."""

KINDS = ("none", "mean", "zscore", "rank", "residual")
BY_DAY = ("zscore", "rank")  # in standard deviations of the day over its stocks; the others are log returns
LEAST_SYMBOLS = 2  # that can be compared


def in_words(relative: object) -> object:
    """The kind that an earlier version wrote as true or false; anything else as it is."""
    return ("mean" if relative else "none") if isinstance(relative, bool) else relative
