"""The clock of a trader: that of the system, or one that a replay sets."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """now: an instant in UTC. sleep: until an instant, or somewhat shorter; whoever waits asks again."""

    def now(self) -> datetime:
        """The time."""

    def sleep(self, until: datetime) -> None:
        """Wait."""


class SystemClock:
    """The clock of the system. It sleeps for `most` seconds at once, after which its owner looks at the latch."""

    def __init__(self, most: float = 30.0) -> None:
        self._most = most

    def now(self) -> datetime:
        """In UTC."""
        return datetime.now(UTC)

    def sleep(self, until: datetime) -> None:
        """Until an instant, and no longer than `most` seconds, so that a clock that is set is noticed."""
        time.sleep(min(self._most, max(0.0, (until - self.now()).total_seconds())))


class ReplayClock:
    """Stands at the instant to which it was set."""

    def __init__(self) -> None:
        self.instant = datetime(1970, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """As set."""
        return self.instant

    def sleep(self, until: datetime) -> None:
        """Go on at once."""
        self.instant = max(self.instant, until)
