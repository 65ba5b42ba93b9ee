"""A digest of every bar of a run, small enough for its folder: later it shows which symbols and days changed.

Legend: T sessions, S symbols.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.files import linked, replacing
from hftraining.runs.record import RecordError

DIGESTS_FILE = "bars.npz"
DAYS_NAMED = 5  # of each symbol


@dataclass(frozen=True)
class BarDigests:
    """symbols_S: their names. sessions_T: datetime64[D]. digest_TS: uint32, 0 where there is no bar."""

    symbols_S: np.ndarray
    sessions_T: np.ndarray
    digest_TS: np.ndarray


@dataclass(frozen=True)
class DataDelta:
    """How the bars of two runs differ: symbols of one run only, and changed days of shared symbols.

    changed, only_first, only_second: symbol -> ISO days, rising.
    """

    symbols_only_first: tuple[str, ...] = ()
    symbols_only_second: tuple[str, ...] = ()
    changed: dict[str, list[str]] = field(default_factory=dict)
    only_first: dict[str, list[str]] = field(default_factory=dict)
    only_second: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def lines(self) -> list[str]:
        """The differences, one line a symbol and kind."""
        first, second = "only in the first", "only in the second"
        lines = [f"{symbol}: {first}" for symbol in self.symbols_only_first]
        lines += [f"{symbol}: {second}" for symbol in self.symbols_only_second]
        for days_by_symbol, what in ((self.changed, "changed"), (self.only_first, first), (self.only_second, second)):
            lines += [f"{symbol}: {_days(days)} {what}" for symbol, days in days_by_symbol.items()]
        return lines


def digest_bars(bars: Bars) -> BarDigests:
    """The digest of each bar, from the bits of its values.

    It misses one changed bar in two thousand million; the run's fingerprint sees that one, too.
    """
    arrays_ATS = [bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, bars.volume_TS]
    mixed_TS = np.zeros(arrays_ATS[0].shape, np.uint64)
    with np.errstate(over="ignore"):
        for array_TS in arrays_ATS:
            mixed_TS ^= np.ascontiguousarray(array_TS, dtype="<f8").view(np.uint64)
            # The finaliser of SplitMix64 (Steele, Lea and Flood 2014): any bit of the value moves every bit.
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                mixed_TS = (mixed_TS ^ (mixed_TS >> np.uint64(shift))) * np.uint64(factor)
            mixed_TS ^= mixed_TS >> np.uint64(31)
    digest_TS = (mixed_TS >> np.uint64(32)).astype(np.uint32) | np.uint32(1)  # never 0, which means no bar
    digest_TS[~np.isfinite(bars.close_TS)] = 0
    return BarDigests(np.asarray(bars.symbols_S, dtype=str), np.asarray(bars.sessions_T, "datetime64[D]"), digest_TS)


def write_digests(digests: BarDigests, folder: Path, shared: Path | None = None) -> None:
    """Write bars.npz into a run folder; given `shared`, as a hard link to that file, which is made if absent.

    So a hundred trials on the same bars store them once.
    """
    target = folder / DIGESTS_FILE
    written = shared or target
    if not shared or not shared.exists():
        written.parent.mkdir(parents=True, exist_ok=True)
        with replacing(written) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **vars(digests))
    if shared:
        linked(shared, target)


def read_digests(folder: Path) -> BarDigests | None:
    """The digests of a run folder, None where it has none. Raises RecordError for a damaged file."""
    path = folder / DIGESTS_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return BarDigests(*(stored[name] for name in ("symbols_S", "sessions_T", "digest_TS")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is damaged ({error})") from error


def data_delta(first: BarDigests, second: BarDigests) -> DataDelta:
    """Which symbols and days differ between the bars of two runs."""
    ours, theirs = ({str(symbol): s for s, symbol in enumerate(part.symbols_S)} for part in (first, second))
    sessions_T = np.union1d(first.sessions_T, second.sessions_T)
    found: dict[str, dict[str, list[str]]] = {"changed": {}, "only_first": {}, "only_second": {}}
    for symbol in (symbol for symbol in ours if symbol in theirs):
        one_T, other_T = np.zeros((2, len(sessions_T)), np.uint32)
        one_T[np.searchsorted(sessions_T, first.sessions_T)] = first.digest_TS[:, ours[symbol]]
        other_T[np.searchsorted(sessions_T, second.sessions_T)] = second.digest_TS[:, theirs[symbol]]
        for kind, where_T in (
            ("changed", (one_T != other_T) & (one_T > 0) & (other_T > 0)),
            ("only_first", (one_T > 0) & (other_T == 0)),
            ("only_second", (one_T == 0) & (other_T > 0)),
        ):
            if where_T.any():
                found[kind][symbol] = [str(day) for day in sessions_T[where_T]]
    return DataDelta(
        tuple(symbol for symbol in ours if symbol not in theirs),
        tuple(symbol for symbol in theirs if symbol not in ours),
        **found,
    )


def _days(days: list[str]) -> str:
    if len(days) <= DAYS_NAMED:
        return ", ".join(days)
    return f"{len(days):,} days from {days[0]} to {days[-1]}"
