"""What all torch models share: forecasts of all sessions in one pass, and weights as safetensors.

Legend: T sessions, S symbols, W windows, K symbols in each, L bars, F features, H horizons, Q quantiles.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hftraining.core.tensor_file import difference, shapes_of
from hftraining.model.config import WEIGHTS, ModelConfig

TOKENS_AT_ONCE = 65_536  # bars of all symbols in one pass, which bounds memory


class Network(nn.Module, ABC):
    """A torch Model (see model/base.py), which training.Trainer trains.

    A kind adds its layers and the abstract methods. It is built from (config, n_features, horizons, levels), and draws
    its weights from torch's random state.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """Bars, today included, that a forecast can depend on."""

    @abstractmethod
    def forward(self, x_WKLF: Tensor, present_WKL: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled features and where they are known -> quantiles_WKLHQ in units of the labels, head_WKL in (-1, 1).

        Row l depends on rows <= l alone. Quantiles do not cross. Where a row is not present, its result means nothing.
        """

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """The last layers, which give quantiles and a position."""

    @torch.inference_mode()
    def predict(self, scaled_TSF: np.ndarray, known_TS: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
        """As every Model."""
        n_sessions, n_symbols = known_TS.shape
        x_STF = torch.from_numpy(scaled_TSF).transpose(0, 1)
        present_ST = torch.from_numpy(known_TS.T.copy())
        # Symbols that see each other must be in one pass.
        at_once = n_symbols if self.config.cross_asset else max(1, TOKENS_AT_ONCE // max(1, n_sessions))
        self.eval()
        parts = [
            self(x[None].to(device), present[None].to(device))
            for x, present in zip(x_STF.split(at_once), present_ST.split(at_once), strict=True)
        ]
        quantiles_STHQ, head_ST = (torch.cat([part[i][0] for part in parts]).cpu().double().numpy() for i in (0, 1))
        quantiles_TSHQ, head_TS = quantiles_STHQ.swapaxes(0, 1), head_ST.T.copy()
        quantiles_TSHQ[~known_TS], head_TS[~known_TS] = np.nan, np.nan
        return quantiles_TSHQ, head_TS

    def save(self, folder: Path) -> list[str]:
        """Write the weights into a folder; returns the file's name."""
        save_file({k: v.contiguous().cpu() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        return [WEIGHTS]

    def load(self, folder: Path) -> None:
        """Read what save wrote. Raises OSError, SafetensorError, RuntimeError or ValueError for other files."""
        self.load_state_dict(read_weights(folder / WEIGHTS, self))


def read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file that fit a model in name, type and shape, all finite. Raises ValueError for others."""
    wanted = {name: (str(w.dtype).removeprefix("torch."), tuple(w.shape)) for name, w in model.state_dict().items()}
    if unlike := difference(shapes_of(path), wanted):
        raise ValueError(unlike)
    tensors = load_file(path)
    if strange := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{strange[0]} holds numbers that are not finite")
    return tensors
