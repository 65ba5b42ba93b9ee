"""The `evidence` group: how thoroughly a run tests whether its profit is luck."""

from dataclasses import dataclass, field

from hftraining.core.errors import did_you_mean

_MOST = {
    "null_draws": 100_000,
    "bootstrap_draws": 100_000,
    "leak_days": 10_000,
}  # more says nothing more, and fills RAM
BASELINES = ("momentum", "momentum_top", "trend", "reversal", "ridge", "lightgbm")


@dataclass
class EvidenceConfig:
    """Draws of the null band and of the bootstrap, the baselines beside the model, and the days of the leak proof."""

    name: str = "default"
    null_draws: int = 500  # higher makes p finer and costs time; never more than the period has offsets
    bootstrap_draws: int = 2000  # higher makes the ends of the intervals steadier
    baselines: list[str] = field(  # beside the model; lightgbm may be added
        default_factory=lambda: ["momentum", "momentum_top", "trend", "reversal", "ridge"]
    )
    leak_days: int = 2  # random days after which the leak proof replaces the future
    ledger: str | None = None  # the file that counts trials and openings; null: the user's own, for all projects

    def __post_init__(self) -> None:
        """Refuse too few draws to say anything, and unknown baselines."""
        # Below 20 draws p cannot reach 0.05; below 100 the ends of a 95 % interval are two or three draws.
        for name, least in (("null_draws", 20), ("bootstrap_draws", 100), ("leak_days", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"evidence.{name}={getattr(self, name)} must be at least {least}")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"evidence.{name}={getattr(self, name)} must be at most {most:,}")
        for baseline in self.baselines:
            if baseline not in BASELINES:
                hint = did_you_mean(str(baseline), BASELINES)
                raise ValueError(
                    f"evidence.baselines={self.baselines}: {baseline} is not one of {', '.join(BASELINES)}{hint}"
                )
        if self.ledger is not None and not self.ledger.strip():
            raise ValueError("evidence.ledger is empty: name a file, or leave it out for your own ledger")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"evidence.baselines={self.baselines} must name each baseline once")
