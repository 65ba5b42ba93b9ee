"""Attention of the transformer: over the last bars of a symbol, and across the symbols of a session.

Legend: W windows, K symbols in each, B sequences of bars (W * K), L bars, D width, H heads, E width of a head, J bars
that are seen, C bars of context or of a block, X blocks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hftraining.model.config import ModelConfig
from hftraining.model.layers import in_one_pass, rotary, split_heads

VECTOR = 16  # floats that a CPU works on at once
FEW_KEYS = 64  # up to here two batched products beat the fused attention of torch's CPU operators


class TimeAttention(nn.Module):
    """Sliding-window attention: bar l sees bars l-C+1 .. l of its own symbol.

    Computed in blocks of queries, each against the keys of its own bars and of the C before them, so cost and memory
    grow with L: see Band. The band is exact: block borders do not change what a bar sees.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads, self.context = config.num_heads, config.context
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_WKLD: Tensor, band: "Band", begin: int = 0) -> Tensor:
        """The last bars of the band -> those from its bar `begin` on, which is 0 or one of Band.first_rows."""
        qkv_WKLD = self.qkv(x_WKLD).float()
        missing = band.length - x_WKLD.shape[2]  # bars of the band ahead of these
        if self.context == 1:  # a bar sees itself alone, so that its own value is the result
            return self.out(qkv_WKLD[:, :, begin - missing :].chunk(3, dim=-1)[2])
        qkv_BLD, bars = qkv_WKLD.flatten(0, 1), (self.num_heads, band.rotation_LE2[missing:])
        if band.at_once:
            mixed_BLHE = attend(*split_heads(qkv_BLD, *bars), band.bias).transpose(1, 2)
        elif band.training:
            mixed_BLHE = self._in_copied_blocks(*split_heads(qkv_BLD, *bars), band)
        else:
            query, key, value = split_heads(qkv_BLD, *bars, band.before, band.after)
            if begin > missing:
                query, key, value = (part[:, :, begin - missing :] for part in (query, key, value))
            mixed_BLHE = _in_blocks(query, key, value, band, begin)
        return self.out(mixed_BLHE.flatten(2).unflatten(0, x_WKLD.shape[:2]))

    def _in_copied_blocks(self, query: Tensor, key: Tensor, value: Tensor, band: "Band") -> Tensor:
        """mixed_BLHE by one call for all sequences, whose gradient is cheaper than that of views."""
        length, missing = query.shape[2], band.after
        query, key, value = (
            (F.pad(part, (0, 0, 0, missing)) if missing else part).unflatten(2, (-1, self.context)).transpose(1, 2)
            for part in (query, key, value)
        )
        blocks = attend(query.flatten(0, 1), _after_the_one_before(key), _after_the_one_before(value), band.bias)
        return blocks.transpose(1, 2).unflatten(0, (-1, band.n_blocks)).flatten(1, 2)[:, :length]


def _in_blocks(query_BHJE: Tensor, key_BHJE: Tensor, value_BHJE: Tensor, band: "Band", begin: int) -> Tensor:
    """mixed_BLHE, a sequence at a time: its blocks overlap in memory, so that no key is copied.

    begin: the first bar L of the band. J: these bars with `before` more ahead, zeros where there are none, and `after`
    zeros behind.
    """
    n_keys, mixed_B = band.before + band.step, []
    bias_BX1CJ = band.bias.unflatten(0, (-1, band.n_blocks))[:, begin // band.step :]
    for query_HJE, key_HJE, value_HJE, bias_X1CJ in zip(query_BHJE, key_BHJE, value_BHJE, bias_BX1CJ, strict=True):
        query_XHCE = query_HJE[:, band.before :].unfold(1, band.step, band.step).permute(1, 0, 3, 2)
        key_XHJE, value_XHJE = (part.unfold(1, n_keys, band.step).permute(1, 0, 3, 2) for part in (key_HJE, value_HJE))
        with torch.autocast(query_HJE.device.type, enabled=False):
            mixed_XHCE = F.scaled_dot_product_attention(query_XHCE, key_XHJE, value_XHJE, attn_mask=bias_X1CJ)
        mixed_B.append(mixed_XHCE.transpose(1, 2).flatten(0, 1)[: band.length - begin])
    return torch.stack(mixed_B)


class Band:
    """What all layers of a forward pass share: the angles of the bars, and what each may see.

    In training at once where L is at most 2C, else in X blocks of `step` queries, each against the keys of `before`
    bars ahead of it and of its own. `after` more bars fill the last block. bias is 0 where query and key meet and minus
    infinity elsewhere: (B, 1, L, L) at once, else (B * X, 1, step, before + step). A bar sees itself, and those of the
    last C bars that are present. Forecasts always come from blocks: the same sums of the same numbers, however many
    bars there are.
    """

    def __init__(self, present_BL: Tensor, context: int, head_width: int, *, training: bool):
        self.length, self.context, device = present_BL.shape[1], context, present_BL.device
        self.training, self.at_once = training, training and self.length <= 2 * context
        self.rotation_LE2 = rotary(self.length, head_width, device)
        # Small blocks see few keys in vain; a number of keys that fills vectors takes up to a third less time.
        self.before, self.step = context, context if training else VECTOR + -context % VECTOR
        self.n_blocks = -(-self.length // self.step)
        self.after = self.n_blocks * self.step - self.length
        if self.at_once:
            query = key = torch.arange(self.length, device=device)
            seen = present_BL
        else:
            n_keys = self.before + self.step
            query = torch.arange(self.before, n_keys, device=device)
            key = torch.arange(n_keys, device=device)
            seen = F.pad(present_BL, (self.before, self.after)).unfold(1, n_keys, self.step).flatten(0, 1)
        distance = query[:, None] - key
        allowed = (distance >= 0) & (distance < context) & seen[:, None, :] | (distance == 0)
        self.bias = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, float("-inf"))[:, None]

    def first_rows(self, begin: int, n_layers: int) -> list[int]:
        """The first bar that the first layer sees and that each computes, for results from bar `begin` on.

        A layer computes what the next one sees, in whole blocks of the same bars as if it computed all of them.
        """
        rows = list[int]()
        for _ in range(n_layers):
            rows.append(begin // self.step * self.step)
            begin = max(0, rows[-1] - self.context + 1)
        return [begin, *rows[::-1]]


def _after_the_one_before(part_BXHCE: Tensor) -> Tensor:
    """(B, X, H, C, E) -> (B * X, H, 2C, E): each block after the one before it, the first after zeros."""
    n_sequences, n_blocks, n_heads, context, width = part_BXHCE.shape
    both = part_BXHCE.new_empty(n_sequences, n_blocks, n_heads, 2 * context, width)
    both[:, 0, :, :context] = 0
    both[:, 1:, :, :context] = part_BXHCE[:, :-1]
    both[:, :, :, context:] = part_BXHCE
    return both.flatten(0, 1)


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
        allowed = (present_BK[:, None, :] | itself)[:, None]  # a symbol sees itself, so that no row is empty
        bias = torch.zeros(allowed.shape, device=x_WKLD.device).masked_fill_(~allowed, float("-inf"))
        mixed_BKD = attend(query, key, value, bias).transpose(1, 2).flatten(2)
        return self.out(mixed_BKD).unflatten(0, (n_windows, length)).transpose(1, 2)


def attend(query_BHLE: Tensor, key_BHJE: Tensor, value_BHJE: Tensor, bias_B1LJ: Tensor) -> Tensor:
    """Softmax attention in fp32, scores scaled by 1 / sqrt(E) plus a bias: the values' mean of each query, BHLE."""
    # Under autocast, too: CPU operators for bf16 attention are several times slower.
    with torch.autocast(query_BHLE.device.type, enabled=False):
        if in_one_pass(query_BHLE) and key_BHJE.shape[2] <= FEW_KEYS:
            scaled = query_BHLE * query_BHLE.shape[-1] ** -0.5
            score_BHLJ = (scaled @ key_BHJE.transpose(2, 3)).add_(bias_B1LJ)
            return score_BHLJ.softmax(dim=-1) @ value_BHJE
        return F.scaled_dot_product_attention(query_BHLE, key_BHJE, value_BHJE, attn_mask=bias_B1LJ)
