"""A digest of every bar of a run, small enough to stay in its folder: later it tells which symbols and days changed.

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
    """How the bars of two runs differ: symbols in one alone, and the days of shared symbols that changed.

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
        """What differs, one line a symbol and kind of difference."""
        lines = [f"{symbol}: only in the first" for symbol in self.symbols_only_first]
        lines += [f"{symbol}: only in the second" for symbol in self.symbols_only_second]
        kinds = (
            (self.changed, "changed"),
            (self.only_first, "only in the first"),
            (self.only_second, "only in the second"),
        )
        for days_by_symbol, what in kinds:
            lines += [f"{symbol}: {_days(days)} {what}" for symbol, days in days_by_symbol.items()]
        return lines


def digest_bars(bars: Bars) -> BarDigests:
    """The digest of each bar, from the bits of its values.

    Of changed bars one in two thousand million would go unseen here; the run's fingerprint sees it.
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
    """Write bars.npz into a run folder; as a hard link to the file `shared`, where given, which is made if absent.

    A hundred trials on the same bars then hold them once.
    """

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **vars(digests))

    if shared is None:
        write(folder / DIGESTS_FILE)
        return
    if not shared.exists():
        write(shared)
    linked(shared, folder / DIGESTS_FILE)


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
    place = [{str(symbol): s for s, symbol in enumerate(part.symbols_S)} for part in (first, second)]
    shared = [symbol for symbol in place[0] if symbol in place[1]]
    sessions_T = np.union1d(first.sessions_T, second.sessions_T)
    found: dict[str, dict[str, list[str]]] = {"changed": {}, "only_first": {}, "only_second": {}}
    for symbol in shared:
        columns = [np.zeros(len(sessions_T), np.uint32) for _ in range(2)]
        for column_T, part, places in zip(columns, (first, second), place, strict=True):
            column_T[np.searchsorted(sessions_T, part.sessions_T)] = part.digest_TS[:, places[symbol]]
        one_T, other_T = columns
        for kind, where_T in (
            ("changed", (one_T != other_T) & (one_T > 0) & (other_T > 0)),
            ("only_first", (one_T > 0) & (other_T == 0)),
            ("only_second", (one_T == 0) & (other_T > 0)),
        ):
            if where_T.any():
                found[kind][symbol] = [str(day) for day in sessions_T[where_T]]
    return DataDelta(
        tuple(symbol for symbol in place[0] if symbol not in place[1]),
        tuple(symbol for symbol in place[1] if symbol not in place[0]),
        **found,
    )


def _days(days: list[str]) -> str:
    if len(days) <= DAYS_NAMED:
        return ", ".join(days)
    return f"{len(days):,} days from {days[0]} to {days[-1]}"
