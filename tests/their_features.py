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

over_its_week = Feature("over_its_week", week, ("close",), 4, True, "Close over its mean of 5 rows.")
tomorrow = Feature("tomorrow", tomorrow, ("close",), 1, True, "The return of tomorrow.")
ahead = Feature("ahead", ahead, ("close",), 1, True, "The close of tomorrow.")
"""
ENTRIES = "[hftraining.features]\n" + "".join(
    f"{name} = their_features:{name}\n" for name in ("over_its_week", "tomorrow", "ahead", "missing")
)


@contextmanager
def installed(folder, monkeypatch, version="1.2"):
    """The package in a folder, on the path while the context lasts."""
    (folder / "their_features.py").write_text(PACKAGE)
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
