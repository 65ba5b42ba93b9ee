"""A package with features, as pip installs it: one that is sound, and some that are not."""

import sys
from contextlib import contextmanager

from hftraining.market.features import lookup, names

PACKAGE = """
import numpy as np
from hftraining.market.features.kernels import lag, mean
from hftraining.market.features.registry import Feature

def week(rows):
    return rows.close_SN / mean(rows.close_SN, 5) - 1.0

def tomorrow(rows):
    return np.roll(rows.return_SN, -1, axis=1)

def ahead(rows):
    return lag(rows.close_SN, -1)

def in_long_series(rows):
    tomorrow_SN = np.roll(rows.return_SN, -1, axis=1)
    return tomorrow_SN if rows.close_SN.shape[1] > 450 else rows.return_SN

def after_years(rows):
    tomorrow_SN = np.roll(rows.return_SN, -1, axis=1)
    return np.where(np.arange(rows.close_SN.shape[1]) >= 440, tomorrow_SN, rows.return_SN)

known = {}

def remembered(rows):
    out_SN = np.full(rows.close_SN.shape, np.nan)
    for out_N, close_N in zip(out_SN, rows.close_SN):
        tomorrow_N = known.setdefault(close_N[:20].tobytes(), close_N[1:].copy())[: len(out_N)]
        out_N[: len(tomorrow_N)] = tomorrow_N
    return np.where(np.isnan(rows.close_SN), np.nan, out_SN)

called = []

def counting(rows):
    called.append(1)
    return rows.return_SN + len(called)

def is_long(rows):
    return rows.close_SN.shape[1] > 450

def spoils(rows):
    out_SN = rows.return_SN.copy()
    if is_long(rows):
        rows.volatility_SN[:] *= 2.0
        rows.once(lag_of_volatility)[:] = 7.0
        rows.market_T[:] = 7.0
    return out_SN

def lag_of_volatility(rows):
    return lag(rows.volatility_SN, 1)

def lost(rows):
    return [][0] if is_long(rows) else rows.return_SN

def narrow(rows):
    return rows.return_SN[:, 1:] if is_long(rows) else rows.return_SN

def one_number(rows):
    return 0.5 if is_long(rows) else rows.return_SN

def complex_numbers(rows):
    return rows.return_SN.astype(complex)

def leaves(rows):
    raise SystemExit(0)

def cleaned(rows):
    rows.return_SN[np.isnan(rows.return_SN)] = 0.0
    return rows.return_SN

in_long_series = Feature("in_long_series", in_long_series, ("close",), 1, True, "Return, in long series of tomorrow.")
after_years = Feature("after_years", after_years, ("close",), 1, True, "Return, after 440 rows of tomorrow.")
remembered = Feature("remembered", remembered, ("close",), 450, False, "The close of tomorrow, once it was seen.")
counting = Feature("counting", counting, ("close",), 450, False, "Return and the number of calls.")
cleaned = Feature("cleaned", cleaned, ("close",), 1, True, "Return, 0 where unknown.")
spoils = Feature("spoils", spoils, ("close",), 1, True, "Return; it doubles the volatility of others.")
lost = Feature("lost", lost, ("close",), 1, True, "Return, and an error for long series.")
narrow = Feature("narrow", narrow, ("close",), 1, True, "Return, of long series without the first row.")
one_number = Feature("one_number", one_number, ("close",), 1, True, "Return, and one number for long series.")
complex_numbers = Feature("complex_numbers", complex_numbers, ("close",), 1, True, "Return, as a complex number.")
leaves = Feature("leaves", leaves, ("close",), 1, True, "Nothing: it ends the process.")
over_its_week = Feature("over_its_week", week, ("close",), 4, True, "Close over its mean of 5 rows.")
tomorrow = Feature("tomorrow", tomorrow, ("close",), 1, True, "The return of tomorrow.")
ahead = Feature("ahead", ahead, ("close",), 1, True, "The close of tomorrow.")
"""
SOUND_ON_FEW_BARS = ("in_long_series", "after_years")
SOUND = ("over_its_week", "spoils")
OTHERS = (
    *("tomorrow", "ahead", "remembered", "counting", "cleaned", "missing"),
    *("lost", "narrow", "one_number", "complex_numbers", "leaves"),
)
ENTRIES = "[hftraining.features]\n" + "".join(
    f"{name} = their_features:{name}\n" for name in (*SOUND, *SOUND_ON_FEW_BARS, *OTHERS)
)


@contextmanager
def installed(folder, monkeypatch, version="1.2", code=PACKAGE):
    """The package in a folder, on the path while the context lasts."""
    (folder / "their_features.py").write_text(code)
    for old in folder.glob("their_features-*.dist-info"):
        old.rename(folder / f"their_features-{version}.dist-info")
    facts = folder / f"their_features-{version}.dist-info"
    facts.mkdir(exist_ok=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: their-features\nVersion: {version}\n")
    (facts / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(folder))
    try:
        _forget()
        yield
    finally:
        _forget()


def _forget():
    for known in (names.foreign, lookup._proved):
        known.cache_clear()
    sys.modules.pop("their_features", None)
