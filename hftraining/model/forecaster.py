"""Forecaster: model, scaler and feature list in one; bars in, forecasts out; saved without any pickle.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.files import sha256
from hftraining.core.forecast import Forecast
from hftraining.market.features import FEATURES, Features, Scaler, make_features
from hftraining.model.config import ModelConfig
from hftraining.model.transformer import BarTransformer

FORMAT = 2  # of the model folder; any other is refused
WEIGHTS = "model.safetensors"
CHECKED = (WEIGHTS, "scaler.json")  # files whose sha256 config.json holds
TOKENS_AT_ONCE = 65_536  # bars of all symbols in one pass; bounds the memory of a wide universe


class ModelFolderError(UserError):
    """A model folder cannot be used: what, where, what to do, in one line."""


@dataclass
class Forecaster:
    """A model with all it needs to turn bars into forecasts.

    symbols: the universe that it learned from, whose mean is "the market" in its features. days: first and last day
    of its training, validation and test sets. Both empty for a model that no run has made.
    """

    model: BarTransformer
    scaler: Scaler
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    device: str = "cpu"
    symbols: tuple[str, ...] = ()
    days: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def fresh(
        cls, config: ModelConfig, scaler: Scaler, horizons: list[int], levels: list[float], device: str
    ) -> "Forecaster":
        """An untrained model; its weights come from torch's random state."""
        model = BarTransformer(config, len(scaler.features), len(horizons), tuple(levels)).to(device)
        return cls(model, scaler, tuple(horizons), tuple(levels), device)

    def forecast(self, bars: Bars) -> Forecast:
        """Forecasts of log returns at every session of the bars, in one pass. See Forecast for the arrays.

        A forecast at t is made of bars <= t alone, and comes out the same to 1e-6 whether the bars end at t or
        go on, and wherever they begin as long as they hold the model's receptive field and 252 bars before it.
        """
        return self.forecast_features(make_features(bars))

    @torch.inference_mode()
    def forecast_features(self, features: Features) -> Forecast:
        """As forecast, from features that are at hand already."""
        known_TS = features.known_TS
        n_sessions, n_symbols = known_TS.shape
        x_STF = torch.from_numpy(self.scaler.scale(features.values_TSF)).transpose(0, 1)
        present_ST = torch.from_numpy(known_TS.T.copy())
        cross_asset = self.model.config.cross_asset
        at_once = n_symbols if cross_asset else max(1, TOKENS_AT_ONCE // max(1, n_sessions))
        self.model.eval()
        parts = [
            self.model(x[None].to(self.device), present[None].to(self.device))
            for x, present in zip(x_STF.split(at_once), present_ST.split(at_once), strict=True)
        ]
        quantiles_STHQ, head_ST = (torch.cat([part[i][0] for part in parts]).cpu().double().numpy() for i in (0, 1))
        quantiles_TSHQ, head_TS = quantiles_STHQ.swapaxes(0, 1), head_ST.T.copy()
        span_TSH = features.volatility_TS[:, :, None] * np.sqrt(np.asarray(self.horizons, float))
        quantiles_TSHQ = quantiles_TSHQ * span_TSH[..., None]
        quantiles_TSHQ[~known_TS], head_TS[~known_TS] = np.nan, np.nan
        return Forecast(quantiles_TSHQ, head_TS, self.horizons, self.levels)

    def save(self, folder: Path) -> None:
        """Write model.safetensors, scaler.json, and config.json with their sha256, into a folder, made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in self.model.state_dict().items()}, folder / WEIGHTS)
        (folder / "scaler.json").write_text(json.dumps(dataclasses.asdict(self.scaler), indent=2) + "\n")
        config = {
            "format": FORMAT,
            "model": dataclasses.asdict(self.model.config),
            "horizons": self.horizons,
            "quantiles": self.levels,
            "symbols": self.symbols,
            "days": self.days,
            "sha256": {name: sha256(folder / name) for name in CHECKED},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Forecaster":
        """Read what save wrote. Raises ModelFolderError where the folder is incomplete, damaged or of another kind."""
        config = _read_json(folder / "config.json")
        if (found := config.get("format")) != FORMAT:
            newer = isinstance(found, int) and found > FORMAT
            what = "was written by a newer version: update hftraining" if newer else "is not one of ours: train again"
            raise ModelFolderError(f"{folder}: model format {found}, where this version reads {FORMAT}, {what}")
        for name in CHECKED:
            if (folder / name).exists() and sha256(folder / name) != config["sha256"][name]:
                raise ModelFolderError(f"{folder / name} is damaged: its sha256 is not the one in config.json")
        scaler = _read_json(folder / "scaler.json")
        if tuple(scaler["features"]) != FEATURES:
            unlike = sorted(set(scaler["features"]) ^ set(FEATURES)) or "their order"
            raise ModelFolderError(f"{folder}: the model was trained on other features; they differ in {unlike}")
        forecaster = cls.fresh(
            ModelConfig(**config["model"]),
            Scaler(FEATURES, tuple(scaler["mean_F"]), tuple(scaler["std_F"])),
            config["horizons"],
            config["quantiles"],
            device,
        )
        forecaster.symbols = tuple(config["symbols"])
        forecaster.days = {name: (first, last) for name, (first, last) in config["days"].items()}
        try:
            forecaster.model.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelFolderError(f"{folder / WEIGHTS} cannot be read as this model: {error}") from error
        return forecaster


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing: not a model folder") from None
    except json.JSONDecodeError as error:
        raise ModelFolderError(f"{path} is damaged: {error}") from None
