"""A trained run at work: its model of any kind or ensemble, its config, and its forecasts as dated frames.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast, weighted_mean
from hftraining.core.untrusted import Untrusted, is_there, refuse_links
from hftraining.experiment.config import ExperimentConfig, load_config
from hftraining.market.features.lookup import other_packages
from hftraining.market.features.table import Features, make_features
from hftraining.market.frames import bars_of
from hftraining.model.ensemble import Ensemble, Predictor, load_predictor
from hftraining.model.folder import ModelFolderError
from hftraining.runs.manifest import MANIFEST, read_facts

logger = logging.getLogger("hftraining")


@dataclass(frozen=True)
class TrainedModel:
    """The model of a run. config: of the run, and manifest: what its run.json says; None and empty for a model alone.

    folder: as it was asked for. symbols: the universe that the model learned from. days: the first and last day of its
    training, validation and test days. kind: one of model.base.KINDS, or ensemble.
    """

    folder: Path
    predictor: Predictor
    config: ExperimentConfig | None = None
    manifest: dict[str, Any] = field(default_factory=dict)

    def forecast(self, frame_or_bars: Bars | pd.DataFrame) -> pd.DataFrame:
        """The forecasts as a frame by date and symbol: a row for each session and symbol that has one.

        frame_or_bars: Bars, or a frame with one row a symbol and day, see market.frames.bars_of. Columns: q50_5 is the
        median of the return over 5 sessions, q05_5 and so on the other quantiles, in the unit of core.forecast; and
        `head`, the model's own position in [-1, 1], where it has one. What a forecast at a close depends on, see
        predict.
        """
        bars = bars_of(frame_or_bars)
        return frame_of(self.predict(bars), bars)

    def predict(self, frame_or_bars: Bars | pd.DataFrame) -> Forecast:
        """The forecasts as arrays, at every session and symbol: see model.base.Forecaster.forecast."""
        return self.predictor.forecast(bars_of(frame_or_bars))

    def save(self, folder: Path) -> None:
        """Write the model into a folder, as that of a run is."""
        self.predictor.save(folder)

    @property
    def kind(self) -> str:
        """One of model.base.KINDS, or ensemble."""
        return self.predictor.kind

    @property
    def horizons(self) -> tuple[int, ...]:
        """Of the forecasts, in sessions."""
        return self.predictor.horizons

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the quantiles."""
        return self.predictor.levels

    @property
    def relative(self) -> str:
        """What the forecasts are relative to: see core.forecast."""
        return self.predictor.relative

    @property
    def symbols(self) -> tuple[str, ...]:
        """The stocks that the model learned from."""
        return self.predictor.symbols

    @property
    def days(self) -> dict[str, tuple[str, str]]:
        """Period -> first and last day; empty where they are not known."""
        return self.predictor.days

    @property
    def device(self) -> str:
        """On which it forecasts."""
        return self.predictor.device

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that it forecasts from."""
        return self.predictor.columns

    @property
    def receptive_field(self) -> int:
        """Sessions, today included, whose features a forecast can depend on."""
        return self.predictor.receptive_field


def load_model(path: Path | str, device: str = "cpu") -> TrainedModel:
    """The model of a run, of any kind, or an ensemble, verified by its checksums. Nothing in the folder is executed.

    path: a run folder, or the model folder in it. Of a fine-tuned run it is the recommended model; the others lie in
    candidates/. Raises ModelFolderError or another UserError (each a ValueError), in one line, for a model that is
    missing, damaged, too large, or of a format that this version does not read, and for a config.yaml that is none;
    MissingDependency where LightGBM is needed and not installed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} does not exist: give a run folder, outputs/base/NAME/DATE_TIME")
    if not is_there(folder / MANIFEST):
        return TrainedModel(folder, load_predictor(folder, device))
    try:
        refuse_links(folder)
        manifest = read_facts(folder)
    except Untrusted as error:
        raise ModelFolderError(str(error)) from None
    if not (folder / "model").is_dir():
        raise ModelFolderError(f"{folder} has no model{_why(folder, manifest)}")
    predictor = load_predictor(folder / "model", device)
    if apart := other_packages(predictor.columns, manifest):
        logger.warning(
            "%s: its features come from another version of their package (%s): its forecasts may be others",
            *(folder, ", ".join(apart)),
        )
    config = load_config(folder / "config.yaml") if is_there(folder / "config.yaml") else None
    return TrainedModel(folder, predictor, config, manifest)


def predictor_of(model: TrainedModel | Predictor) -> Predictor:
    """What forecasts in a model of load_model; any other is a forecaster itself."""
    return model.predictor if isinstance(model, TrainedModel) else model


def _why(folder: Path, manifest: dict[str, Any]) -> str:
    """Why a run has no model, and what to do."""
    kind, made_of = manifest.get("kind"), manifest.get("made_of") or []
    if kind == "backtests" and made_of:
        return f": it is a backtest of {made_of[0]['folder']}, which has one"
    if kind == "evaluations":
        return ": it is an evaluation of weights"
    return f" yet: python train.py resume={folder} finishes it"


def frame_of(forecast: Forecast, bars: Bars) -> pd.DataFrame:
    """A forecast for all sessions and symbols of some bars as a frame: see TrainedModel.forecast."""
    known_TS = np.isfinite(forecast.quantiles_TSHQ).any(axis=(2, 3)) | np.isfinite(forecast.head_TS)
    t_N, s_N = np.nonzero(known_TS)
    index = pd.MultiIndex.from_arrays(
        [bars.sessions_T[t_N].astype("datetime64[s]"), np.asarray(bars.symbols_S, object)[s_N]],
        names=["date", "symbol"],
    )
    columns = {
        f"{_level(level)}_{horizon}": forecast.quantiles_TSHQ[t_N, s_N, h, q]
        for h, horizon in enumerate(forecast.horizons)
        for q, level in enumerate(forecast.levels)
    }
    if np.isfinite(forecast.head_TS).any():
        columns["head"] = forecast.head_TS[t_N, s_N]
    return pd.DataFrame(columns, index=index)


def _level(level: float) -> str:
    """q05 for 0.05, q50 for 0.5, q02.5 for 0.025."""
    whole, point, rest = f"{100 * level:.10g}".partition(".")
    return f"q{whole:0>2}{point}{rest}"


class Table:
    """The features of some bars by their columns: each set is made once."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._made: dict[tuple[str, ...], Features] = {}

    def of(self, columns: Sequence[str]) -> Features:
        """The features of these columns at every session."""
        columns = tuple(columns)
        if columns not in self._made:
            self._made[columns] = make_features(self.bars, columns)
        return self._made[columns]


def forecast_of(predictor: Predictor, table: Table, symbols: Sequence[str], rows: slice) -> Forecast:
    """The forecast of some symbols on the sessions of some rows, to the bit as a run makes it of its periods.

    A run cuts the features to its receptive field before the period, and to the stocks that it trades: where the
    stocks of a model see each other all of them are forecast, of the bars in the table.
    """
    if isinstance(predictor, Ensemble):
        asked = [pair for pair in zip(predictor.members, predictor.weights, strict=True) if pair[1] > 0.0]
        parts = (forecast_of(member, table, symbols, rows) for member, _ in asked)
        return weighted_mean(parts, [weight for _, weight in asked])
    everyone, columns = table.bars.symbols_S, table.bars.columns_of(symbols)
    first = max(0, rows.start - predictor.receptive_field + 1)
    features = table.of(predictor.columns).rows(slice(first, rows.stop))
    begin = rows.start - first
    if tuple(symbols) == everyone:
        return predictor.forecast_features(features, everyone, begin)
    if predictor.looks_across:
        whole = predictor.forecast_features(features, everyone, begin)
        return Forecast(
            whole.quantiles_TSHQ[:, columns], whole.head_TS[:, columns], whole.horizons, whole.levels, whole.relative
        )
    return predictor.forecast_features(features.of(columns), symbols, begin)


@contextmanager
def threads_of(model: TrainedModel) -> Iterator[None]:
    """Within, torch uses as many threads as the run did, so that sums are rounded alike.

    A model without a run leaves them as they are; no file asks for more than this machine has.
    """
    before, asked = torch.get_num_threads(), model.manifest.get("threads")
    try:
        if isinstance(asked, int) and asked > 0:
            torch.set_num_threads(min(asked, max(before, os.cpu_count() or 1)))
        yield
    finally:
        torch.set_num_threads(before)
