"""Networks that forecast a bar from its last `context` bars alone, which they read anew for every bar.

So a forecast is the same wherever the bars begin and end, whatever a kind does within its window: it may look both
ways, normalise, or carry a state, since all of a window is past. It costs `context` times what one pass over the bars
would. Bars before the first one, and bars that are absent, are zeros: the mean of the training days.

Legend: W windows of days, K symbols in each, L bars, F features, C bars of context, D width, H horizons, Q quantiles.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hftraining.model.network import Network

BARS_AT_ONCE = 262_144  # of all windows together, outside training: it bounds memory


class Windowed(Network):
    """A kind says what a bar is (`each_bar`) and what a window comes to (`at_the_end`).

    It calls `finish` when its layers stand. series: how many times it goes over a window.
    """

    series = 1

    @property
    def receptive_field(self) -> int:
        """The bars of a window."""
        return self.config.context

    def each_bar(self, x_WKLF: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """What the windows hold of each bar; its features unless a kind says otherwise."""
        return x_WKLF

    @abstractmethod
    def at_the_end(self, x_WKLFC: Tensor, present_WKLC: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """What the last bar of each window is forecast from, (W, K, L, D). x is 0 where a bar is not present."""

    def finish(self, width: int, horizons: tuple[int, ...], levels: tuple[float, ...]) -> None:
        """Add the last layers, which read so many numbers, and draw the weights of all linear layers.

        An untrained model forecasts about a driftless normal return, as the transformer does.
        """
        self.n_horizons, self.n_quantiles = len(horizons), len(levels)
        self.quantiles = nn.Linear(width, self.n_horizons * self.n_quantiles)
        self.position = nn.Linear(width, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for head in (self.quantiles, self.position):
            nn.init.normal_(head.weight, std=min(0.02, 0.2 * width**-0.5))  # they add up many numbers
        normal_Q = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).float()
        with torch.no_grad():
            self.quantiles.bias.copy_(normal_Q.repeat(self.n_horizons))

    def heads(self) -> list[nn.Module]:
        """The linear layers at the end."""
        return [self.quantiles, self.position]

    def forward(
        self, x_WKLF: Tensor, present_WKL: Tensor, symbol_WK: Tensor | None = None, begin: int = 0
    ) -> tuple[Tensor, Tensor]:
        """As every Network. Quantiles are sorted, as in the transformer."""
        n_windows, n_symbols, length = present_WKL.shape
        context = self.config.context
        bars_WKLF = self.each_bar(torch.where(present_WKL[..., None], x_WKLF, 0.0), symbol_WK)
        bars_WKLF = torch.where(present_WKL[..., None], bars_WKLF, 0.0)
        bars_WKLF = F.pad(bars_WKLF, (0, 0, context - 1, 0))
        present_WKL = F.pad(present_WKL, (context - 1, 0))
        # In training the masks of dropout are those of one call.
        at_once = length if self.training else max(1, BARS_AT_ONCE // (n_windows * n_symbols * context * self.series))
        parts = []
        for first in range(begin, length, at_once):
            rows = slice(first, min(first + at_once, length) + context - 1)
            windows = bars_WKLF[:, :, rows].unfold(2, context, 1), present_WKL[:, :, rows].unfold(2, context, 1)
            parts.append(self.at_the_end(*windows, symbol_WK))
        x_WKLD = torch.cat(parts, dim=2)
        quantiles_WKLHQ = self.quantiles(x_WKLD).float().unflatten(-1, (self.n_horizons, self.n_quantiles))
        head_WKL = torch.tanh(self.position(x_WKLD).float().squeeze(-1))
        return quantiles_WKLHQ.sort(dim=-1).values, head_WKL
