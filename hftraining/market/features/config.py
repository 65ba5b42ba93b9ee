"""The `features` group: which columns a model sees, and whether they are kept."""

from dataclasses import dataclass, field

from hftraining.market.features.names import BASIC, refuse_unknown


@dataclass
class FeaturesConfig:
    """The columns, in their order; see docs/features.md."""

    name: str = "basic"
    columns: list[str] = field(default_factory=lambda: list(BASIC))  # NAME or NAME_rank, among the stocks of the day
    cache: bool = True  # keep many features in the user's cache folder, for the next run on the same bars

    def __post_init__(self) -> None:
        """Refuse names of no feature, doubled ones, and an empty list."""
        try:
            refuse_unknown(self.columns)
        except ValueError as error:
            raise ValueError(f"features.columns: {error}") from None
