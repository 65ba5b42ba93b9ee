"""The `training` group: how long, how fast and how carefully the model learns."""

from dataclasses import dataclass, field

from hftraining.core.metrics import BY_NAME, LOSS_TAG

PRECISIONS = ("fp32", "bf16")
METHODS = ("full", "head", "lora", "scratch")
BEST_METRICS = (LOSS_TAG, BY_NAME["sharpe_ratio"].tag, BY_NAME["total_return"].tag)


@dataclass
class TrainingConfig:
    """The step loop."""

    name: str = "quick"
    max_steps: int = 600
    batch_size: int = 16  # windows a step; a multiple of symbols_per_window
    window: int = 128  # contiguous bars in a window
    symbols_per_window: int = 4  # symbols that share the days of a window, and one account in the profit objective
    learning_rate: float = 3e-4
    warmup_steps: int = 50  # steps of linear warm-up; a cosine decay to a tenth follows
    weight_decay: float = 0.1
    grad_clip: float = 1.0  # largest gradient norm
    precision: str = "fp32"  # fp32, or bf16 for the linear layers (attention and the loss stay fp32)
    device: str = "cpu"  # cpu or cuda
    threads: int = 0  # threads of torch; 0 leaves its default. Another count gives other bits
    checkpoint_every: int = 250  # steps
    log_every: int = 10  # steps
    best_metric: str = "eval/loss"  # which probe metric chooses the model that is kept
    patience: int = 0  # so many probes in a row without a better one end the training; 0: only max_steps ends it
    history: int = 0  # learn from the last so many training sessions; 0: from all
    # Fine-tuning, with init_from:
    methods: list[str] = field(default_factory=list)  # what is tried: full, head, lora (what is trained), scratch
    shrinkage: float = 0.0  # higher pulls the weights back to where they started; times the rate, each step
    lora_rank: int = 4  # higher lets lora move further from the base

    def __post_init__(self) -> None:
        """Refuse a loop that cannot run."""
        for name in ("max_steps", "batch_size", "symbols_per_window", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name}={getattr(self, name)} must be at least 1")
        if self.window < 2:
            raise ValueError(f"training.window={self.window} must be at least 2 bars")
        if self.batch_size % self.symbols_per_window:
            raise ValueError(
                f"training.batch_size={self.batch_size} must be a multiple of "
                f"training.symbols_per_window={self.symbols_per_window}"
            )
        for name in ("warmup_steps", "weight_decay", "threads", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"training.{name}={getattr(self, name)} must not be negative")
        for name in ("learning_rate", "grad_clip"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"training.{name}={getattr(self, name)} must be positive")
        for name, least in (("history", 0), ("shrinkage", 0.0), ("lora_rank", 1)):
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"training.{name}={getattr(self, name)} must be at least {least}")
        for method in self.methods:
            if method not in METHODS or self.methods.count(method) > 1:
                raise ValueError(f"training.methods={self.methods} must name some of {', '.join(METHODS)}, each once")
        if self.precision not in PRECISIONS:
            raise ValueError(f"training.precision={self.precision} is not one of {', '.join(PRECISIONS)}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"training.device={self.device} is not one of cpu, cuda")
        if self.best_metric not in BEST_METRICS:
            raise ValueError(f"training.best_metric={self.best_metric} is not one of {', '.join(BEST_METRICS)}")
