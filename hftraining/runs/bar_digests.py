"""A digest of every bar of a run, small enough for its folder: later it shows which symbols and days changed.

Legend: T sessions, S symbols.
"""

import io
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.files import linked, replacing
from hftraining.core.untrusted import MB, is_printable, is_there, open_regular, shown
from hftraining.runs.record import RecordError

DIGESTS_FILE = "bars.npz"
DAYS_NAMED = 5  # of each symbol
ARRAYS = ("symbols_S", "sessions_T", "digest_TS")
FILE_MOST, UNPACKED_MOST = 256 * MB, 512 * MB  # bytes of the file, and of an array in it
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
BROKEN = (zipfile.BadZipFile, zlib.error, SyntaxError)  # what the libraries raise for broken files


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
    if shared and (shared.is_symlink() or shared.parent.is_symlink()):
        raise RecordError(f"{shared} lies behind a symbolic link: remove the link")
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
    if not is_there(path):
        return None
    try:
        with open_regular(path, FILE_MOST) as file, zipfile.ZipFile(file) as archive:
            found = BarDigests(*(_array(archive, name) for name in ARRAYS))
        _check(found)
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, *BROKEN) as error:
        if isinstance(error, UserError):
            raise
        raise RecordError(f"{path} is damaged ({shown(error, 120)})") from None
    return found


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of plain numbers or text, whose header claims what the archive holds, and no more than UNPACKED_MOST."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > UNPACKED_MOST:
        raise ValueError(f"{name} has {entry.file_size:,} bytes unpacked")
    with archive.open(entry) as packed:
        content = packed.read(UNPACKED_MOST + 1)  # whatever the archive says
    file = io.BytesIO(content)
    read_header = HEADERS.get(np.lib.format.read_magic(file))
    if read_header is None:
        raise ValueError(f"{name} is of another format")
    shape, _, dtype = read_header(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"{name} does not hold what it claims")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _check(found: BarDigests) -> None:
    symbols_S, sessions_T, digest_TS = found.symbols_S, found.sessions_T, found.digest_TS
    if (symbols_S.ndim, sessions_T.ndim) != (1, 1) or digest_TS.shape != (len(sessions_T), len(symbols_S)):
        raise ValueError("its arrays do not fit together")
    if symbols_S.dtype.kind != "U" or sessions_T.dtype != "datetime64[D]" or digest_TS.dtype != np.uint32:
        raise ValueError("its arrays are of other types")
    if len(set(symbols_S.tolist())) < len(symbols_S) or not all(map(is_printable, symbols_S.tolist())):
        raise ValueError("its symbols are not names, each there once")
    if not (sessions_T[:-1] < sessions_T[1:]).all() or np.isnat(sessions_T).any():
        raise ValueError("its sessions do not rise")


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
