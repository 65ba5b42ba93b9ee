"""MLP: a feed-forward network on the features of the last `context` bars, by default of today alone.

Source: Gu, Kelly and Xiu (2020), Empirical Asset Pricing via Machine Learning, whose networks see one date of a stock;
here with RMS norm, GELU and dropout.

Legend: W windows of days, K symbols in each, L bars, F features, C bars of context.
"""

from torch import Tensor, nn

from hftraining.model.config import ModelConfig
from hftraining.model.layers import Gelu, RmsNorm
from hftraining.model.noise import Dropout
from hftraining.model.windowed import Windowed


class Mlp(Windowed):
    """`model=mlp`. num_layers hidden layers of hidden_size."""

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        super().__init__(config)
        width = config.hidden_size
        inputs = [n_features * config.context] + [width] * (config.num_layers - 1)
        self.layers = nn.ModuleList(nn.Linear(n_inputs, width) for n_inputs in inputs)
        self.norms = nn.ModuleList(RmsNorm(width) for _ in inputs)
        self.gelu = Gelu()
        self.dropouts = nn.ModuleList(Dropout(config.dropout) for _ in inputs)
        self.finish(width, horizons, levels)

    def embeddings(self) -> list[Tensor]:
        """As every Network: the first layer takes the features."""
        return [*super().embeddings(), *self.layers[0].parameters()]

    def at_the_end(self, x_WKLFC: Tensor, present_WKLC: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """The last hidden layer. A symbol's vector is added before the first norm."""
        x_WKLD = x_WKLFC.flatten(3)
        for number, (layer, norm, dropout) in enumerate(zip(self.layers, self.norms, self.dropouts, strict=True)):
            x_WKLD = layer(x_WKLD).float()
            if number == 0:
                x_WKLD = self.with_symbols(x_WKLD, symbol_WK)
            x_WKLD = dropout(self.gelu(norm(x_WKLD)))
        return x_WKLD
