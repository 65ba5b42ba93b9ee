"""PatchTST: a transformer over patches of the last `context` bars, each window normalised by itself.

Source: Nie et al. (2023), A Time Series is Worth 64 Words. Departures: patches are counted back from today; what a
window's normalisation takes away, its means and deviations, comes back as a token of its own, since the target is a
return and not the continuation of a feature, to which the paper adds it back; norms are RMS norms before each step.

Legend: W windows of days, K symbols in each, L bars, F features, C bars of context, P patches, B bars of a patch,
D width, N heads, E width of a head, S = 1 + P tokens, M series: 1, or F with channel_independent.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hftraining.model.config import ModelConfig
from hftraining.model.feed_forward import FeedForward
from hftraining.model.layers import RmsNorm
from hftraining.model.noise import Dropout
from hftraining.model.windowed import Windowed

FLAT = 0.1  # training deviations: below it a feature is flat in a window, and rounding would be magnified


class PatchTst(Windowed):
    """`model=patchtst`. Tokens of the features together or, with channel_independent, of each feature by itself."""

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        super().__init__(config)
        width = config.hidden_size
        self.series = series = n_features if config.channel_independent else 1
        features = n_features // series
        self.patch = nn.Linear(features * config.patch_length, width)
        self.scale = nn.Linear(2 * features, width)
        self.places = nn.Parameter(torch.empty(1 + config.n_patches, width))
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RmsNorm(width)
        self.finish(series * (1 + config.n_patches) * width, horizons, levels)
        nn.init.normal_(self.places, std=0.02)

    def embeddings(self) -> list[Tensor]:
        """As every Network: patches and their scale come in, each at its place."""
        return [*super().embeddings(), self.places, *self.patch.parameters(), *self.scale.parameters()]

    def at_the_end(self, x_WKLFC: Tensor, present_WKLC: Tensor, symbol_WK: Tensor | None) -> Tensor:
        """The tokens of the last block, one after another; those of patches without a bar are zeros."""
        length, stride = self.config.patch_length, self.config.stride
        x_WKLFC, mean_WKLF, deviation_WKLF = normalised(x_WKLFC, present_WKLC)
        patch_WKLFPB = x_WKLFC.unfold(-1, length, stride)
        scale_WKLF2 = torch.stack([mean_WKLF, deviation_WKLF], dim=-1)
        if self.config.channel_independent:
            patch_WKLMPX, scale_WKLMX = patch_WKLFPB, scale_WKLF2
        else:
            patch_WKLMPX = patch_WKLFPB.transpose(3, 4).flatten(4)[:, :, :, None]
            scale_WKLMX = scale_WKLF2.flatten(3)[:, :, :, None]
        x_WKLMSD = torch.cat([self.scale(scale_WKLMX)[..., None, :], self.patch(patch_WKLMPX)], dim=4).float()
        x_WKLMSD = x_WKLMSD + self.places
        x_WKLMSD = self.with_symbols(x_WKLMSD.flatten(2, 4), symbol_WK).view(x_WKLMSD.shape)

        seen_WKLP = present_WKLC.unfold(-1, length, stride).any(dim=-1)
        seen_WKLS = F.pad(seen_WKLP, (1, 0), value=True)  # the first token is always there
        mask = seen_WKLS[:, :, :, None].expand(x_WKLMSD.shape[:-1]).flatten(0, 3)[:, None, None]
        x_XSD = self.dropout(x_WKLMSD.flatten(0, 3))
        for block in self.blocks:
            x_XSD = block(x_XSD, mask)
        x_WKLMSD = self.norm(x_XSD).view(x_WKLMSD.shape)
        return torch.where(seen_WKLS[:, :, :, None, :, None], x_WKLMSD, 0.0).flatten(3)


class Block(nn.Module):
    """Attention over all tokens of a window, both ways, and an MLP."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = RmsNorm(config.hidden_size)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_dropout = Dropout(config.dropout)
        self.mlp_norm = RmsNorm(config.hidden_size)
        self.mlp = FeedForward(config.hidden_size)
        self.mlp_dropout = Dropout(config.dropout)

    def forward(self, x_XSD: Tensor, mask: Tensor) -> Tensor:
        """X windows; mask (X, 1, 1, S) is False for tokens that nothing may look at."""
        qkv = self.qkv(self.attention_norm(x_XSD)).float().unflatten(-1, (3, self.num_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(dim=2))
        with torch.autocast(x_XSD.device.type, enabled=False):
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x_XSD = self.attention_dropout.added_to(x_XSD, self.out(mixed.transpose(1, 2).flatten(2)))
        return self.mlp_dropout.added_to(x_XSD, self.mlp(self.mlp_norm(x_XSD)))


def normalised(x_WKLFC: Tensor, present_WKLC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each feature less its mean over the present bars of a window, over its deviation there; the mean; the deviation.

    Zero where a bar is not present, as x is.
    """
    present_WKL1C = present_WKLC[:, :, :, None]
    count_WKL1 = present_WKLC.sum(dim=-1).clamp(min=1)[..., None]
    mean_WKLF = x_WKLFC.sum(dim=-1) / count_WKL1
    centred_WKLFC = (x_WKLFC - mean_WKLF[..., None]) * present_WKL1C
    deviation_WKLF = (centred_WKLFC.square().sum(dim=-1) / count_WKL1 + FLAT**2).sqrt()
    return centred_WKLFC / deviation_WKLF[..., None], mean_WKLF, deviation_WKLF
