"""The whole causal transformer over bars: one pass gives a forecast at every bar.

Legend: W windows, K symbols in each, L bars, F features, D width, N heads, E width of a head, H horizons,
Q quantiles, C bars of context. Pre-norm, rotary positions, sliding-window attention over C bars.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hftraining.model.config import ModelConfig
from hftraining.model.network import Network


class BarTransformer(Network):
    """Decoder-only transformer: features of the bars up to t -> quantiles and position of the decision at t."""

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        super().__init__(config)
        self.n_horizons, self.n_quantiles = len(horizons), len(levels)
        self.embed = nn.Linear(n_features, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size)
        self.quantiles = nn.Linear(config.hidden_size, self.n_horizons * len(levels))
        self.position = nn.Linear(config.hidden_size, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
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

    def forward(self, x_WKLF: Tensor, present_WKL: Tensor) -> tuple[Tensor, Tensor]:
        """As every Network. Quantiles are sorted (Chernozhukov, Fernandez-Val and Galichon 2010)."""
        x_WKLD = self.embed(x_WKLF).float()  # the residual stream and the norms stay fp32 under autocast
        length = x_WKLF.shape[2]
        rotation = rotary(length, self.config.hidden_size // self.config.num_heads, x_WKLF.device)
        mask = band_mask(present_WKL.flatten(0, 1), self.config.context)
        for block in self.blocks:
            x_WKLD = block(x_WKLD, mask, rotation, present_WKL)
        x_WKLD = self.norm(x_WKLD)
        quantiles_WKLHQ = self.quantiles(x_WKLD).float().unflatten(-1, (self.n_horizons, self.n_quantiles))
        head_WKL = torch.tanh(self.position(x_WKLD).float().squeeze(-1))
        return quantiles_WKLHQ.sort(dim=-1).values, head_WKL


class Block(nn.Module):
    """Attention over time, optionally attention over the symbols of a session, and a gated MLP."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.time_norm = nn.RMSNorm(config.hidden_size)
        self.time = TimeAttention(config)
        self.assets_norm = nn.RMSNorm(config.hidden_size) if config.cross_asset else None
        self.assets = AssetAttention(config) if config.cross_asset else None
        self.mlp_norm = nn.RMSNorm(config.hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(config.hidden_size, 4 * config.hidden_size),
            nn.GELU(),
            nn.Linear(4 * config.hidden_size, config.hidden_size),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_WKLD: Tensor, mask: Tensor, rotation: Tensor, present_WKL: Tensor) -> Tensor:
        """Three residual steps; mask and rotation as in TimeAttention."""
        x_WKLD = x_WKLD + self.dropout(self.time(self.time_norm(x_WKLD), mask, rotation))
        if self.assets is not None and self.assets_norm is not None:
            x_WKLD = x_WKLD + self.dropout(self.assets(self.assets_norm(x_WKLD), present_WKL))
        return x_WKLD + self.dropout(self.mlp(self.mlp_norm(x_WKLD)))


class TimeAttention(nn.Module):
    """Sliding-window attention: bar l sees bars l-C+1 .. l of its own symbol.

    Computed in blocks of C queries against their own and the previous block of keys, so cost and memory grow
    with L * 2C. The band is exact: block borders do not change what a bar sees.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads, self.context = config.num_heads, config.context
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_WKLD: Tensor, mask: Tensor, rotation: Tensor) -> Tensor:
        """mask: see band_mask; rotation: see rotary. Any length L."""
        n_windows, n_symbols, length, width = x_WKLD.shape
        context = self.context
        qkv = self.qkv(x_WKLD).float().view(n_windows * n_symbols, length, 3, self.num_heads, -1)
        query, key = rotate(qkv[:, :, 0], rotation), rotate(qkv[:, :, 1], rotation)
        padding = (0, 0, 0, 0, 0, -length % context)
        query, key, value = (F.pad(part, padding) for part in (query, key, qkv[:, :, 2]))
        blocks = query.unflatten(1, (-1, context)).flatten(0, 1).transpose(1, 2)  # (B * blocks, N, C, E)
        key, value = (_with_previous_block(part, context) for part in (key, value))
        # Attention stays in fp32: CPU kernels for bf16 attention are several times slower.
        with torch.autocast(x_WKLD.device.type, enabled=False):
            mixed = F.scaled_dot_product_attention(blocks, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(n_windows, n_symbols, -1, width)[:, :, :length]
        return self.out(mixed)


def _with_previous_block(part_BLNE: Tensor, context: int) -> Tensor:
    """(B, blocks * C, N, E) -> (B * blocks, N, 2C, E): each block after the one before it."""
    block_BXCNE = part_BLNE.unflatten(1, (-1, context))
    previous_BXCNE = F.pad(block_BXCNE[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([previous_BXCNE, block_BXCNE], dim=2).flatten(0, 1).transpose(1, 2)


class AssetAttention(nn.Module):
    """Attention across the symbols that are present at the same session, which have no order."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_WKLD: Tensor, present_WKL: Tensor) -> Tensor:
        """No other symbol sees one that is absent."""
        n_windows, n_symbols, length, _ = x_WKLD.shape
        x_BKD = x_WKLD.transpose(1, 2).flatten(0, 1)
        qkv = self.qkv(x_BKD).float().unflatten(-1, (3, self.num_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(dim=2))
        present_BK = present_WKL.transpose(1, 2).flatten(0, 1)
        itself = torch.eye(n_symbols, dtype=torch.bool, device=x_WKLD.device)
        mask = (present_BK[:, None, :] | itself)[:, None]  # a symbol sees itself, so that no row is empty
        with torch.autocast(x_WKLD.device.type, enabled=False):
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed_BKD = mixed.transpose(1, 2).flatten(2)
        return self.out(mixed_BKD).unflatten(0, (n_windows, length)).transpose(1, 2)


def band_mask(present_BL: Tensor, context: int) -> Tensor:
    """(B * blocks, 1, C, 2C), True where query c of a block may see key j of its own or the previous block.

    A bar sees itself, and those of the last C bars that are present.
    """
    present = F.pad(present_BL, (0, -present_BL.shape[1] % context)).unflatten(1, (-1, context))
    both = torch.cat([F.pad(present[:, :-1], (0, 0, 1, 0)), present], dim=2).flatten(0, 1)
    distance = torch.arange(context, device=present_BL.device)[:, None] + context
    distance = distance - torch.arange(2 * context, device=present_BL.device)[None, :]
    band = (distance >= 0) & (distance < context)
    return ((both[:, None, :] & band) | (distance == 0))[:, None]


def rotary(length: int, width: int, device: torch.device) -> Tensor:
    """(L, 1, E / 2, 2) cosines and sines of rotary positions (Su et al. 2021), computed in float64."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angle = torch.arange(length, dtype=torch.float64, device=device)[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()[:, None]


def rotate(x_BLNE: Tensor, rotation: Tensor) -> Tensor:
    """Rotate each pair (first half, second half) of a head by the angle of its position."""
    first, second = x_BLNE.chunk(2, dim=-1)
    cos, sin = rotation.unbind(dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
