"""The `training` group: how long, how fast and how carefully the model learns."""

from dataclasses import dataclass, field

from hftraining.core.metrics import BY_NAME, LOSS_TAG

PRECISIONS = ("fp32", "bf16")
DEVICES = ("cpu", "cuda")
METHODS = ("full", "head", "lora", "scratch")
BEST_METRICS = (LOSS_TAG, BY_NAME["sharpe_ratio"].tag, BY_NAME["total_return"].tag)
_LEAST = {
    **dict.fromkeys(("max_steps", "batch_size", "symbols_per_window", "checkpoint_every", "log_every", "lora_rank"), 1),
    **dict.fromkeys(("warmup_steps", "weight_decay", "threads", "patience", "history", "shrinkage"), 0),
    "window": 2,
}
# No machine has more, or nobody would wait; a slip of the finger is refused before it fills the memory.
_MOST = {
    **dict.fromkeys(("max_steps", "warmup_steps", "checkpoint_every", "log_every", "patience", "history"), 10**9),
    **{"batch_size": 65_536, "symbols_per_window": 65_536, "window": 100_000, "lora_rank": 65_536, "threads": 512},
    **{"learning_rate": 100.0, "grad_clip": 1e12, "weight_decay": 1e6, "shrinkage": 1e12},
}


@dataclass
class TrainingConfig:
    """The step loop."""

    name: str = "quick"
    max_steps: int = 500  # of training, at most; patience may end it earlier
    batch_size: int = 32  # stretches of one symbol a step; a multiple of symbols_per_window, or less: then one window
    window: int = 128  # contiguous bars in a window
    symbols_per_window: int = 16  # at most; they share the days of a window, and one account in the profit objective
    learning_rate: float = 3e-4  # the highest, after the warm-up
    warmup_steps: int = 50  # steps of linear warm-up; a cosine decay to a tenth follows
    weight_decay: float = 0.1  # higher keeps the weights smaller
    grad_clip: float = 1.0  # largest gradient norm
    ema: float = 0.0  # of the weights, decay a step, e.g. 0.99: probes and the saved model use the average; 0: off
    precision: str = "fp32"  # fp32, or bf16 for the linear layers (attention and the loss stay fp32)
    device: str = "cpu"  # cpu or cuda
    threads: int = 0  # of torch; 0 keeps its default. Results depend on it in the last bits
    checkpoint_every: int = 250  # steps
    log_every: int = 10  # steps
    best_metric: str = "eval/loss"  # the probed metric that chooses the best step
    patience: int = 3  # training ends after so many probes in a row without a better one; 0: at max_steps
    history: int = 0  # how many of the last training sessions to learn from; 0: all
    # Fine-tuning, with init_from:
    methods: list[str] = field(default_factory=list)  # to try: full, head, lora (which weights are trained), scratch
    shrinkage: float = 0.0  # higher pulls the weights back to the base; times the rate, each step
    lora_rank: int = 4  # higher lets lora move further from the base

    def __post_init__(self) -> None:
        """Refuse a loop that cannot run."""
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"training.{name}={getattr(self, name)} must be at least {least}")
        for name, most in _MOST.items():
            if not getattr(self, name) <= most:
                raise ValueError(f"training.{name}={getattr(self, name)} must be at most {most:,}")
        if self.batch_size % min(self.batch_size, self.symbols_per_window):
            raise ValueError(
                f"training.batch_size={self.batch_size} must be a multiple of "
                f"training.symbols_per_window={self.symbols_per_window}, or less"
            )
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"training.ema={self.ema} must lie in [0, 1)")
        for name in ("learning_rate", "grad_clip"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"training.{name}={getattr(self, name)} must be positive")
        for method in self.methods:
            if method not in METHODS or self.methods.count(method) > 1:
                raise ValueError(f"training.methods={self.methods} must name some of {', '.join(METHODS)}, each once")
        for name, choices in (("precision", PRECISIONS), ("device", DEVICES), ("best_metric", BEST_METRICS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"training.{name}={getattr(self, name)} is not one of {', '.join(choices)}")
