"""LightGBM: small trees on today's features for each horizon.

Legend: F features, H horizons, N rows (a symbol on a day), M later rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hftraining.core.untrusted import MB, Untrusted, read_text, shown
from hftraining.model.learner import MeanModel, MissingDependency
from hftraining.model.tree_text import what_is_wrong

MOST_LEAVES = 8
TREES = {
    "objective": "regression",
    "num_leaves": MOST_LEAVES,
    "learning_rate": 0.05,
    "feature_fraction": 0.5,
    "max_bin": 63,
    "verbosity": -1,
    "deterministic": True,
    "force_col_wise": True,  # otherwise LightGBM times both layouts and takes the faster, which moves the last bits
    "num_threads": 1,  # on a busy machine threads wait seconds for each other
}
MOST_TREES, PATIENCE = 100, 20
TEXT_MOST = MB  # of a horizon: ten times the text of MOST_TREES
LEAF_SHARE = 0.01  # least share of the rows in a leaf: a few rows are noise


@dataclass(frozen=True)
class Trees:
    """A LightGBM booster for each horizon."""

    boosters_H: list[Any]

    def predict(self, x_NF: np.ndarray) -> np.ndarray:
        """mean_NH in float64."""
        means = [booster.predict(x_NF, num_threads=TREES["num_threads"]) for booster in self.boosters_H]
        return np.stack(means, axis=1)


def fit_trees(x_NF: np.ndarray, label_NH: np.ndarray, rounds_H: np.ndarray, *, seed: int) -> Trees:
    """Fit rounds_H small trees on the squared error, for each horizon by itself.

    Labels are finite. The same rows and seed give the same bits. Raises MissingDependency without LightGBM.
    """
    lightgbm = _lightgbm()
    parameters = _parameters(len(x_NF), seed)
    rows = lightgbm.Dataset(x_NF, params=parameters)  # binned once for all horizons
    boosters = []
    for label_N, rounds in zip(label_NH.T, rounds_H, strict=True):
        rows.set_label(label_N)
        boosters.append(lightgbm.train(parameters, rows, num_boost_round=int(rounds)))
    return Trees(boosters)


def choose_rounds(
    x_NF: np.ndarray, label_NH: np.ndarray, x_MF: np.ndarray, label_MH: np.ndarray, *, seed: int
) -> np.ndarray:
    """rounds_H: the number of trees that, fitted on the N rows, has the least squared error on the M later rows."""
    lightgbm = _lightgbm()
    parameters = _parameters(len(x_NF), seed)
    rows = lightgbm.Dataset(x_NF, params=parameters)
    later = lightgbm.Dataset(x_MF, params=parameters, reference=rows)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    rounds_H = np.empty(label_NH.shape[1], np.int64)
    for h in range(len(rounds_H)):
        rows.set_label(label_NH[:, h])
        later.set_label(label_MH[:, h])
        booster = lightgbm.train(parameters, rows, num_boost_round=MOST_TREES, valid_sets=[later], callbacks=[stop])
        rounds_H[h] = booster.best_iteration
    return rounds_H


class TreesModel(MeanModel[Trees]):
    """`model=lightgbm`. It chooses its numbers of trees. Raises MissingDependency without LightGBM."""

    choose, fit = staticmethod(choose_rounds), staticmethod(fit_trees)

    def _untrained(self) -> Trees:
        # Every feature counts alike in the label, so that the trees split on each of them.
        rng, n_horizons = np.random.default_rng(0), len(self.horizons)
        x_NF = rng.normal(size=(1000, self.n_features))
        slope_FH = rng.choice([-0.1, 0.1], (self.n_features, n_horizons))
        return fit_trees(x_NF, x_NF @ slope_FH, np.full(n_horizons, 2 * self.n_features), seed=0)

    @property
    def size(self) -> int:
        """As every Model: L leaves have L - 1 thresholds."""
        leaves = [
            2 * tree["num_leaves"] - 1 for booster in self.mean.boosters_H for tree in booster.dump_model()["tree_info"]
        ]
        return super().size + sum(leaves)

    def save(self, folder: Path) -> list[str]:
        """Write the quantiles of the residuals, and LightGBM's text of each horizon; returns the names of the files."""
        written = super().save(folder)
        for name, booster in zip(self._names(), self.mean.boosters_H, strict=True):
            (folder / name).write_text(booster.model_to_string(), encoding="utf-8")
        return [*written, *self._names()]

    def load(self, folder: Path) -> None:
        """Read what save wrote. Raises UserError for files of another model."""
        super().load(folder)
        lightgbm = _lightgbm()
        boosters = []
        for name in self._names():
            text = read_text(folder / name, TEXT_MOST)
            if wrong := what_is_wrong(text, self.n_features, MOST_TREES, MOST_LEAVES):
                raise Untrusted(f"{folder / name} cannot be read: {wrong}")
            try:
                boosters.append(lightgbm.Booster(model_str=text))
            except (lightgbm.basic.LightGBMError, ValueError) as error:
                raise Untrusted(f"{folder / name} cannot be read: {shown(error, 120)}") from error
        self.mean = Trees(boosters)

    def _names(self) -> list[str]:
        return [f"trees_{horizon}.txt" for horizon in self.horizons]


def _parameters(n_rows: int, seed: int) -> dict[str, Any]:
    return {**TREES, "min_data_in_leaf": max(20, int(LEAF_SHARE * n_rows)), "seed": seed}


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingDependency(
            'lightgbm: LightGBM is not installed: pip install -e ".[baselines]", or do without lightgbm'
        ) from None
    return lightgbm
