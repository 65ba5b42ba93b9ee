"""The optimisers and the schedule of their learning rate."""

import math

from torch import Tensor, optim

from hftraining.model.network import Network
from hftraining.training.config import TrainingConfig

FINAL_SHARE = 0.1  # of the peak learning rate, reached at the last step
BETAS = (0.9, 0.95)  # of AdamW; the second is that of large language models: short trainings have few steps to average


def make_optimizers(model: Network, config: TrainingConfig) -> tuple[optim.Optimizer, ...]:
    """What steps on the weights that are not frozen; only matrices decay.

    adamw: AdamW (Loshchilov and Hutter 2019) on all of them. muon: Muon (Jordan et al. 2024) on the hidden matrices,
    with updates of AdamW's size (Liu et al. 2025), so that one learning rate and weight decay suit both, and AdamW on
    the rest. Both are torch's own; AdamW in its fused form, which is the fastest on a CPU, too.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    hidden = {id(p) for p in hidden_matrices(model)} if config.optimizer == "muon" else set()
    rest = [p for p in weights if id(p) not in hidden]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate, decay = config.learning_rate, config.weight_decay
    matrices = [p for p in weights if id(p) in hidden]
    made: list[optim.Optimizer] = [optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)] if rest else []
    if matrices:
        made.append(optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return tuple(made)


def hidden_matrices(model: Network) -> list[Tensor]:
    """The trained matrices between the first layers, which take features and symbols, and the heads."""
    ends = {id(p) for p in model.embeddings()} | {id(p) for head in model.heads() for p in head.parameters()}
    return [p for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in ends]


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of a step, counted from 1: linear warm-up to the peak, then training.schedule.

    cosine: falls to a tenth of the peak at the last step. constant: stays at the peak. wsd (warm-up, stable, decay: Hu
    et al. 2024): stays, and over the last decay_share of all steps falls in a line to a tenth.
    """
    warmup, last = config.warmup_steps, config.max_steps
    if step <= warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "wsd":
        start = max(warmup, last - max(1, round(config.decay_share * last)))
        left = 1.0 - max(0, step - start) / max(1, last - start)
    else:
        left = 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, last - warmup)))
    return config.learning_rate * (FINAL_SHARE + (1.0 - FINAL_SHARE) * left)
