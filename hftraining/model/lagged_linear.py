"""Linear: quantiles and position as a linear map of the features of the last `context` bars.

DLinear (Zeng et al. 2023) splits a window into its moving average and the rest, with a linear layer on each: together a
linear map of the window, like this one, which says the same with one layer.

Legend: W windows of days, K symbols in each, L bars, F features, C bars of context.
"""

from torch import Tensor

from hftraining.model.config import ModelConfig
from hftraining.model.windowed import Windowed


class LaggedLinear(Windowed):
    """`model=linear`. It has no layers but the last ones."""

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        super().__init__(config)
        self.finish(n_features * config.context, horizons, levels)

    def at_the_end(self, x_WKLFC: Tensor, present_WKLC: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """The window itself."""
        return x_WKLFC.flatten(3)
