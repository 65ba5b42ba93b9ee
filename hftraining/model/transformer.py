"""The whole causal transformer over bars: one pass gives a forecast at every bar.

Legend: W windows, K symbols in each, L bars, F features, D width, H horizons, Q quantiles. Pre-norm, rotary positions,
sliding-window attention over the bars of the context.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from hftraining.model.attention import AssetAttention, Band, TimeAttention
from hftraining.model.config import WEIGHTS, ModelConfig
from hftraining.model.feed_forward import FeedForward
from hftraining.model.layers import RmsNorm
from hftraining.model.network import Network, read_weights
from hftraining.model.noise import Dropout


class BarTransformer(Network):
    """Decoder-only transformer: features of the bars up to t -> quantiles and position of the decision at t."""

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        super().__init__(config)
        self.n_horizons, self.n_quantiles = len(horizons), len(levels)
        self.embed = nn.Linear(n_features, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden_size)
        self.quantiles = nn.Linear(config.hidden_size, self.n_horizons * len(levels))
        self.position = nn.Linear(config.hidden_size, 1)
        self.apply(_draw)
        for block in self.blocks if config.cross_asset else ():  # drawn last: the rest is that of a model without it
            assert isinstance(block, Block)
            block.look_across(config)
        # Start from a driftless normal return: labels of every kind look like it, with a variance of about one.
        normal_Q = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).float()
        with torch.no_grad():
            self.quantiles.bias.copy_(normal_Q.repeat(self.n_horizons))

    @property
    def receptive_field(self) -> int:
        """Each layer sees context - 1 bars further back."""
        return self.config.num_layers * (self.config.context - 1) + 1

    def heads(self) -> list[nn.Module]:
        """The linear layers after the last norm."""
        return [self.quantiles, self.position]

    def forward(
        self, x_WKLF: Tensor, present_WKL: Tensor, symbol_WK: Tensor | None = None, begin: int = 0
    ) -> tuple[Tensor, Tensor]:
        """As every Network. Quantiles are sorted (Chernozhukov, Fernandez-Val and Galichon 2010)."""
        assert not (begin and self.training)
        width = self.config.hidden_size // self.config.num_heads
        band = Band(present_WKL.flatten(0, 1), self.config.context, width, training=self.training)
        seen, *firsts = band.first_rows(begin, len(self.blocks))
        # The residual stream and the norms stay fp32 under autocast.
        x_WKLD = self.with_symbols(self.embed(x_WKLF[:, :, seen:]).float(), symbol_WK)
        for block, first in zip(self.blocks, firsts, strict=True):
            x_WKLD = block(x_WKLD, band, present_WKL, first)
        if begin:
            x_WKLD = x_WKLD[:, :, begin - band.length :]
        x_WKLD = self.norm(x_WKLD)
        quantiles_WKLHQ = self.quantiles(x_WKLD).float().unflatten(-1, (self.n_horizons, self.n_quantiles))
        head_WKL = torch.tanh(self.position(x_WKLD).float().squeeze(-1))
        return quantiles_WKLHQ.sort(dim=-1).values, head_WKL

    def load(self, folder: Path) -> None:
        """As every Network. A model of an earlier version, without gates, looks across stocks in full: gates of 1."""
        gates = {name: torch.ones_like(w) for name, w in self.state_dict().items() if name.endswith(".assets_gate")}
        self.load_state_dict(read_weights(folder / WEIGHTS, self, gates))


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class Block(nn.Module):
    """Attention over time, optionally attention over the symbols of a session, and a gated MLP."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.time_norm = RmsNorm(config.hidden_size)
        self.time = TimeAttention(config)
        self.mlp_norm = RmsNorm(config.hidden_size)
        self.mlp = FeedForward(config.hidden_size)
        self.time_dropout = Dropout(config.dropout)
        self.mlp_dropout = Dropout(config.dropout)
        self.assets: AssetAttention | None = None

    def look_across(self, config: ModelConfig) -> None:
        """Add attention across symbols, behind a gate that starts at zero: at first the block computes what it did.

        Source: Bachlechner et al. (2021), ReZero, with a gate for each number of the width as in Touvron et al. (2021).
        """
        self.assets_norm = RmsNorm(config.hidden_size)
        self.assets = AssetAttention(config).apply(_draw)
        self.assets_gate = nn.Parameter(torch.zeros(config.hidden_size))
        self.assets_dropout = Dropout(config.dropout)

    def forward(self, x_WKLD: Tensor, band: Band, present_WKL: Tensor, begin: int = 0) -> Tensor:
        """Three residual steps, for the last bars of the band; the result is of the bars from `begin` on."""
        mixed_WKLD = self.time(self.time_norm(x_WKLD), band, begin)
        if begin:
            x_WKLD = x_WKLD[:, :, begin - band.length :]
        x_WKLD = self.time_dropout.added_to(x_WKLD, mixed_WKLD)
        if self.assets is not None:
            mixed_WKLD = self.assets_gate * self.assets(self.assets_norm(x_WKLD), present_WKL[:, :, begin:])
            x_WKLD = self.assets_dropout.added_to(x_WKLD, mixed_WKLD)
        return self.mlp_dropout.added_to(x_WKLD, self.mlp(self.mlp_norm(x_WKLD)))
