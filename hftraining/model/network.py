"""What all torch models share: forecasts of all sessions in one pass, and weights as safetensors.

Legend: T sessions, S symbols, W windows, K symbols in each, L bars, F features, H horizons, Q quantiles.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hftraining.core.tensor_file import difference, shapes_of
from hftraining.model.config import WEIGHTS, ModelConfig

TOKENS_AT_ONCE = 8_192  # bars of all symbols in one pass: what stays in the cache; 65,536 take 1.5 times as long


class Network(nn.Module, ABC):
    """A torch Model (see model/base.py), which training.Trainer trains.

    A kind adds its layers and the abstract methods; it drops values by model.noise.Dropout alone. It is built from
    (config, n_features, horizons, levels), and draws its weights from torch's random state.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        # Without values at first: drawing them would change the weights of the other layers.
        empty = torch.zeros(0, config.hidden_size)
        self.symbols = nn.Embedding.from_pretrained(empty, freeze=False) if config.symbol_embedding else None

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """Bars, today included, that a forecast can depend on."""

    @abstractmethod
    def forward(
        self, x_WKLF: Tensor, present_WKL: Tensor, symbol_WK: Tensor | None = None, begin: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Scaled features and where they are known -> quantiles_WKLHQ in units of the labels, head_WKL in (-1, 1).

        symbol_WK: int64, the symbols' numbers in the universe that the model learned from, -1 for others; None: all -1.
        begin: the results are of the rows from there on; nothing is computed that these do not depend on.
        Row l depends on rows <= l alone. Quantiles do not cross. Where a row is not present, its result means nothing.
        """

    def seat(self, number_S: Sequence[int]) -> None:
        """Give the model a universe: symbol s keeps the vector that number_S[s] had, -1 begins with zeros."""
        if self.symbols is not None:
            vector_SD = self._vectors(torch.tensor(number_S, dtype=torch.int64, device=self.symbols.weight.device))
            self.symbols = nn.Embedding.from_pretrained(vector_SD.detach().clone(), freeze=False)

    def with_symbols(self, x_WKLD: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """x plus the learned vector of each symbol, if the config has any; nothing for an unknown symbol."""
        if self.symbols is None or symbol_WK is None:
            return x_WKLD
        return x_WKLD + self._vectors(symbol_WK)[:, :, None]

    def _vectors(self, symbol: Tensor) -> Tensor:
        assert self.symbols is not None
        return F.embedding(symbol + 1, F.pad(self.symbols.weight, (0, 0, 1, 0)))  # zeros before the first, for -1

    def embeddings(self) -> list[Tensor]:
        """The weights that meet features, symbols or places first: of layers called embed, and of tables of vectors."""
        tables = [layer for layer in self.modules() if isinstance(layer, nn.Embedding)]
        layers = [layer for name, layer in self.named_children() if name.startswith("embed")]
        return [weight for layer in (*tables, *layers) for weight in layer.parameters()]

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """The last layers, which give quantiles and a position."""

    @property
    def size(self) -> int:
        """As every Model."""
        return sum(weight.numel() for weight in self.parameters())

    @torch.inference_mode()
    def predict(
        self,
        scaled_TSF: np.ndarray,
        known_TS: np.ndarray,
        device: str,
        symbol_S: np.ndarray | None = None,
        begin: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As every Model."""
        n_sessions, n_symbols = known_TS.shape
        x_STF = torch.from_numpy(scaled_TSF).transpose(0, 1)
        present_ST = torch.from_numpy(known_TS.T.copy())
        symbol_S = np.full(n_symbols, -1) if symbol_S is None else symbol_S
        # Symbols that see each other must be in one pass.
        at_once = n_symbols if self.config.cross_asset else max(1, TOKENS_AT_ONCE // max(1, n_sessions))
        self.eval()
        parts = [
            self(*(part[None].to(device) for part in some), begin)
            for some in zip(
                *(part.split(at_once) for part in (x_STF, present_ST, torch.from_numpy(symbol_S))), strict=True
            )
        ]
        quantiles_STHQ, head_ST = (torch.cat([part[i][0] for part in parts]).cpu().double().numpy() for i in (0, 1))
        quantiles_TSHQ, head_TS = quantiles_STHQ.swapaxes(0, 1), head_ST.T.copy()
        unknown_TS = ~known_TS[begin:]
        quantiles_TSHQ[unknown_TS], head_TS[unknown_TS] = np.nan, np.nan
        return quantiles_TSHQ, head_TS

    def save(self, folder: Path) -> list[str]:
        """Write the weights into a folder; returns the file's name."""
        save_file({k: v.contiguous().cpu() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        return [WEIGHTS]

    def load(self, folder: Path) -> None:
        """Read what save wrote. Raises OSError, SafetensorError, RuntimeError or ValueError for other files."""
        self.load_state_dict(read_weights(folder / WEIGHTS, self))


def read_weights(path: Path, model: nn.Module, before: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a file that fit a model in name, type and shape, all finite. Raises ValueError for others.

    before: what weights stood for in earlier versions, whose files have none of them.
    """
    wanted = {name: (str(w.dtype).removeprefix("torch."), tuple(w.shape)) for name, w in model.state_dict().items()}
    found = shapes_of(path)
    added = {} if before is None or before.keys() & found.keys() else dict(before)
    if unlike := difference(found, {name: shape for name, shape in wanted.items() if name not in added}):
        raise ValueError(unlike)
    tensors = load_file(path)
    if strange := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{strange[0]} holds numbers that are not finite")
    return tensors | added
