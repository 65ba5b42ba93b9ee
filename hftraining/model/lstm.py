"""LSTM: a recurrent network that begins anew `context` bars before each forecast.

A state carried through all bars would make a forecast depend, however little, on where the bars begin; read over
exactly `context` bars it does not, at `context` times the cost. Source: Hochreiter and Schmidhuber (1997).

Legend: W windows of days, K symbols in each, L bars, F features, C bars of context, D width, N = W * K * L.
"""

import torch
from torch import Tensor, nn

from hftraining.model.config import ModelConfig
from hftraining.model.layers import RmsNorm
from hftraining.model.noise import Dropout
from hftraining.model.windowed import Windowed


class Lstm(Windowed):
    """`model=lstm`. num_layers of hidden_size on an embedding of each bar; dropout on the embedding and the last state.

    An absent bar is an embedding of zeros. LoRA leaves the recurrent weights as they are.
    """

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        super().__init__(config)
        width = config.hidden_size
        self.embed = nn.Linear(n_features, width)
        self.embed_dropout = Dropout(config.dropout)
        self.lstm = nn.LSTM(width, width, config.num_layers, batch_first=True)
        self.norm = RmsNorm(width)
        self.dropout = Dropout(config.dropout)
        self.finish(width, horizons, levels)
        nn.init.normal_(self.embed.weight, std=n_features**-0.5)  # gates saturate at about one

    def each_bar(self, x_WKLF: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """The embedding of a bar, with the vector of its symbol."""
        return self.embed_dropout(self.with_symbols(self.embed(x_WKLF).float(), symbol_WK))

    def at_the_end(self, x_WKLFC: Tensor, present_WKLC: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """The state after the last bar of each window."""
        x_NCD = x_WKLFC.transpose(3, 4).flatten(0, 2).contiguous()
        with torch.autocast(x_NCD.device.type, enabled=False):
            states_NCD, _ = self.lstm(x_NCD)
        return self.dropout(self.norm(states_NCD[:, -1].unflatten(0, x_WKLFC.shape[:3])))
