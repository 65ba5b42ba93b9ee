"""The groups `training`, how long, how fast and how carefully the model learns, and `walk_forward`, how often anew."""

from dataclasses import dataclass, field, fields

from hftraining.core.errors import did_you_mean
from hftraining.core.metrics import BEST_TAGS

PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("cpu", "cuda")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "constant", "wsd")
ENGINES = ("local", "ray")
METHODS = ("full", "head", "lora", "scratch")
WINDOWS = ("expanding", "sliding")
_LEAST = {
    **dict.fromkeys(("max_steps", "batch_size", "symbols_per_window", "checkpoint_every", "log_every", "lora_rank"), 1),
    "accumulate": 1,
    **dict.fromkeys(("warmup_steps", "weight_decay", "threads", "patience", "history", "shrinkage"), 0),
    "processes": 1,
    "seeds": 1,
    "window": 2,
}
# No machine has more, or nobody would wait; a slip of the finger is refused before it fills the memory.
_MOST = {
    **dict.fromkeys(("max_steps", "warmup_steps", "checkpoint_every", "log_every", "patience", "history"), 10**9),
    **dict.fromkeys(("batch_size", "accumulate", "symbols_per_window", "lora_rank"), 65_536),
    **{"window": 100_000, "threads": 512, "processes": 256, "seeds": 100},
    **{"learning_rate": 100.0, "grad_clip": 1e12, "weight_decay": 1e6, "shrinkage": 1e12},
}


@dataclass
class TrainingConfig:
    """The step loop."""

    name: str = "quick"
    max_steps: int = 500  # of training, at most; patience may end it earlier
    batch_size: int = 32  # stretches of one symbol a step; a multiple of symbols_per_window, or less: then one window
    accumulate: int = 1  # parts that a step's windows are computed in: less memory, the same gradient up to rounding
    window: int = 128  # contiguous bars in a window
    symbols_per_window: int = 16  # at most; they share the days of a window, and one account in the profit objective
    optimizer: str = "adamw"  # adamw, or muon for the hidden matrices and adamw for the rest
    learning_rate: float = 3e-4  # the highest, after the warm-up
    schedule: str = "cosine"  # after the warm-up: cosine to a tenth, constant, or wsd: constant, then down to a tenth
    warmup_steps: int = 50  # steps of linear warm-up
    decay_share: float = 0.2  # of all steps, the last ones, in which wsd falls
    weight_decay: float = 0.1  # higher keeps the weights smaller
    grad_clip: float = 1.0  # largest gradient norm
    ema: float = 0.0  # of the weights, decay a step, e.g. 0.99: probes and the saved model use the average; 0: off
    precision: str = "fp32"  # or bf16: of the linear layers' products. auto: the faster on this machine, which is kept
    compile: bool = False  # the network by torch.compile: minutes to build for faster steps; the model is the same
    device: str = "cpu"  # cpu or cuda
    threads: int = 0  # of torch, in each process; 0: its default, or a share. Results depend on it in the last bits
    processes: int = 1  # that share the windows of a step; with cuda each has a device. Up to rounding the same result
    engine: str = "local"  # what starts the processes: local on this machine, or ray (Ray Train, on its cluster)
    checkpoint_every: int = 250  # steps
    log_every: int = 10  # steps
    best_metric: str = "eval/loss"  # the probed metric that chooses the best step: eval/ic, profit/sharpe_ratio, ...
    patience: int = 3  # training ends after so many probes in a row without a better one; 0: at max_steps
    seeds: int = 1  # models, trained one after another from seed, seed + 1, ...; the run's model is their mean
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
        choices = {"precision": PRECISIONS, "device": DEVICES, "best_metric": BEST_TAGS}
        for name, known in (choices | {"engine": ENGINES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}).items():
            if (value := getattr(self, name)) not in known:
                hint = did_you_mean(value, known)
                raise ValueError(f"training.{name}={value} is not one of {', '.join(known)}{hint}")
        if not 0.0 < self.decay_share <= 1.0:
            raise ValueError(f"training.decay_share={self.decay_share} must lie in (0, 1]")
        if self.schedule != "wsd" and self.decay_share != TrainingConfig.decay_share:
            raise ValueError(
                f"training.decay_share={self.decay_share} belongs to training.schedule=wsd, not {self.schedule}: "
                "leave it out"
            )
        if self.engine != "local" and self.processes == 1:
            raise ValueError(f"training.engine={self.engine} starts processes: set training.processes, e.g. to 2")


@dataclass
class WalkForwardConfig:
    """Training anew along time: the folds tile the validation days, then the test days, each forecast out of sample."""

    name: str = "none"
    every: int = 0  # sessions, after which the model is trained anew: the length of a fold; 0: one training, as always
    window: str = "expanding"  # what each fold learns from: expanding, all days before it, or sliding, the last ones
    sessions: int = 0  # of a sliding window: the days before a fold that it learns from, the inner ones among them
    inner_share: float = 0.1  # of the days before a fold, the last ones, which choose its best step
    finetune: bool = False  # each fold trains on from the weights and scaler of the fold before
    workers: int = 1  # processes that train folds side by side; they divide the threads

    def __post_init__(self) -> None:
        """Refuse a walk that cannot be taken."""
        for name, least, most in (("every", 0, 10**6), ("sessions", 0, 10**6), ("workers", 1, 256)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"walk_forward.{name}={getattr(self, name)} must lie in [{least}, {most:,}]")
        if not 0.0 < self.inner_share <= 0.5:
            raise ValueError(f"walk_forward.inner_share={self.inner_share} must lie in (0, 0.5]")
        if self.window not in WINDOWS:
            hint = did_you_mean(self.window, WINDOWS)
            raise ValueError(f"walk_forward.window={self.window} is not one of {', '.join(WINDOWS)}{hint}")
        if (self.window == "sliding") != (self.sessions > 0):
            raise ValueError(
                f"walk_forward.window={self.window} with sessions={self.sessions}: a sliding window needs "
                "walk_forward.sessions, e.g. 1260, and an expanding one has none"
            )
        if self.finetune and self.workers > 1:
            raise ValueError(
                f"walk_forward.workers={self.workers} with finetune=true: each fold begins with the weights of the "
                "fold before, so they are trained one after the other: use walk_forward.workers=1"
            )
        unread = [
            name for name in ("window", "inner_share", "finetune", "workers") if getattr(self, name) != _WALK[name]
        ]
        if not self.every and unread:
            raise ValueError(
                f"walk_forward.{unread[0]}={getattr(self, unread[0])} without walk_forward.every: say how often the "
                "model is trained anew, e.g. walk_forward=yearly or walk_forward=252"
            )


_WALK = {entry.name: entry.default for entry in fields(WalkForwardConfig)}
