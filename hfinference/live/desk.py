"""What a trader asks of a desk: the place where orders are filled, and the account lies."""

from datetime import datetime
from typing import Protocol

import numpy as np

from hfinference.live.entries import Order
from hfinference.live.journal import Journal
from hftraining.core.bars import Bars


class Desk(Protocol):
    """The embedded paper broker, or a broker's account. All raise Halt.

    name: a word for the journal. A desk is asked in the order of these methods, within one transaction of the journal
    from `rescale` to `withdraw`, once a session.
    """

    name: str

    def now(self) -> datetime | None:
        """The broker's clock, in UTC; None where it is ours."""

    def reconcile(self, journal: Journal) -> None:
        """Compare the account with the journal, at each start and before each sending; raise Halt for a difference."""

    def rescale(self, journal: Journal, day: str, factors: dict[str, float], reasons: dict[str, str]) -> None:
        """Take note that all prices of some symbols were multiplied by a factor: by a dividend or a split."""

    def settle(self, journal: Journal, bars: Bars) -> None:
        """Book what was filled, at the last of these bars, of the orders that were planned before."""

    def account(self) -> tuple[float, float, dict[str, float]]:
        """Cash and equity after the last close, in currency, and the signed shares that are held."""

    def decide(self, journal: Journal, bars: Bars, weights_S: np.ndarray) -> list[Order]:
        """The orders for the next open that lead to these weights, as planned ones; nothing is written."""

    def close_only(self) -> None:
        """Before `decide`: of what earlier sessions have decided, and nobody was told yet, only closing is left."""

    def withdraw(self) -> None:
        """Forget what was decided: it may not be sent."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What the journal keeps of this session for the desk."""

    def send(self, journal: Journal, now: datetime) -> None:
        """Send what is planned and may be sent now; what is sent already is not sent again."""

    def next_send(self, journal: Journal, now: datetime) -> datetime | None:
        """When to call `send` next; None: not before the next session."""
