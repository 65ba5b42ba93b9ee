"""The optimiser and its schedule."""

import math

from torch import nn, optim

from hftraining.training.config import TrainingConfig

FINAL_SHARE = 0.1  # of the peak learning rate, reached at the last step


def make_optimizer(model: nn.Module, config: TrainingConfig) -> optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) on the weights that are not frozen; only matrices decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of a step, counted from 1: linear warm-up, then a cosine from the peak to a tenth of it."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * (FINAL_SHARE + (1.0 - FINAL_SHARE) * cosine)
