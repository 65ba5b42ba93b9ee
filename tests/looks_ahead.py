"""A feature that looks ahead, in the place of one of the registry."""

from dataclasses import replace

import numpy as np

from hftraining.market.features.registry import REGISTRY


def over_the_highest_volume(rows):
    """The volume over the highest of all days, later ones included."""
    return rows.volume_SN / np.nanmax(rows.volume_SN, axis=1, keepdims=True)


def plant(monkeypatch, name="relative_volume", make=over_the_highest_volume):
    monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], make=make))
