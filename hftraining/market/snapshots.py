"""Immutable snapshots of what Yahoo once answered: a parquet file named after its content, and a manifest beside it."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hftraining.market.config import MarketDataError

NUMBERS = ("open", "high", "low", "close", "volume", "adj_close", "dividend", "split")
ID = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds and when it was made; not part of its address."""

    id: str
    symbols: list[str]
    start: str | None  # as asked for
    end: str | None
    first: str  # as answered
    last: str
    rows: int
    retrieved: str  # UTC
    yfinance: str


@dataclass(frozen=True)
class Snapshot:
    """Raw bars with dividends and splits, columns symbol, date and NUMBERS, sorted by symbol and date."""

    manifest: Manifest
    table: pd.DataFrame

    @property
    def id(self) -> str:
        """16 hex digits of the content."""
        return self.manifest.id

    @property
    def retrieved(self) -> str:
        """When Yahoo was asked."""
        return self.manifest.retrieved

    def refuse_unless_it_covers(self, symbols: list[str], start: str | None, end: str | None) -> None:
        """Raise MarketDataError when more is asked for than was stored."""
        stored = self.manifest
        lacking = [symbol for symbol in symbols if symbol not in stored.symbols]
        if lacking:
            raise MarketDataError(
                f"stocks.snapshot={self.id} has no {', '.join(lacking)}; it holds {', '.join(stored.symbols)}"
            )
        # A day beyond the first or last row is covered if it was asked for, or lay in the past, at the time.
        until = stored.end or stored.retrieved[:10]
        if (start and stored.start and start < stored.start) or (end and end > until):
            raise MarketDataError(
                f"stocks.snapshot={self.id} runs from {stored.first} to {stored.last}, not from {start} to {end}: "
                "choose other dates, or leave stocks.snapshot out to ask yahoo"
            )

    def rows_of(self, symbols: list[str], start: str | None, end: str | None) -> pd.DataFrame:
        """The rows of some symbols and days; symbol is categorical."""
        keep = self.table["symbol"].isin(symbols)
        if start:
            keep &= self.table["date"] >= start
        if end:
            keep &= self.table["date"] <= end
        table = self.table[keep].reset_index(drop=True)
        return table.assign(symbol=pd.Categorical(table["symbol"], categories=sorted(symbols)))


def store(folder: Path, table: pd.DataFrame, start: str | None, end: str | None) -> Snapshot:
    """Write a table under its address, whole or not at all. start, end: as asked for."""
    table = table[["symbol", "date", *NUMBERS]].sort_values(["symbol", "date"], ignore_index=True)
    days = table["date"].dt.strftime("%Y-%m-%d")
    manifest = Manifest(
        _address(table),
        sorted(table["symbol"].unique()),
        start,
        end,
        days.min(),
        days.max(),
        len(table),
        datetime.now(UTC).isoformat(timespec="seconds"),
        version("yfinance"),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), content, compression="zstd")
        _write(folder / f"{manifest.id}.parquet", content.getvalue().to_pybytes())
        _write(folder / f"{manifest.id}.json", json.dumps(asdict(manifest), indent=2).encode())
    except OSError as error:
        raise MarketDataError(f"stocks.snapshots={folder} cannot be written: {error}") from error
    return Snapshot(manifest, table)


def load(folder: Path, address: str) -> Snapshot:
    """A stored snapshot, or MarketDataError where it is not there or is not what its name says."""
    if not ID.match(address):
        raise MarketDataError(f"stocks.snapshot={address} is not a snapshot id, which is 16 hex digits")
    path = folder / f"{address}.parquet"
    if not path.is_file():
        stored = sorted(file.stem for file in folder.glob("*.parquet"))
        there = f"it holds {', '.join(stored[:10])}" if stored else "it holds none"
        raise MarketDataError(f"stocks.snapshot={address} is not in {folder}; {there}")
    try:
        table = pq.read_table(path).to_pandas()
        manifest = Manifest(**json.loads((folder / f"{address}.json").read_text()))
        found = _address(table)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise MarketDataError(
            f"snapshot {path} is damaged ({' '.join(str(error).split())[:100]}): delete it and ask again with "
            "stocks.refresh=true"
        ) from error
    if found != address or manifest.id != address:
        raise MarketDataError(
            f"snapshot {path} was altered, its content now hashes to {found}: restore it, or delete it and ask again "
            "with stocks.refresh=true"
        )
    return Snapshot(manifest, table)


def newest(folder: Path, symbols: list[str], start: str | None, end: str | None) -> Snapshot | None:
    """The last stored answer to exactly this request, whatever the order of its symbols."""
    asked = (sorted(set(symbols)), start, end)
    fitting = []
    for path in folder.glob("*.json"):
        try:
            manifest = Manifest(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise MarketDataError(f"snapshot manifest {path} is damaged: delete it and its parquet file") from error
        if (manifest.symbols, manifest.start, manifest.end) == asked:
            fitting.append((manifest.retrieved, manifest.id))
    return load(folder, max(fitting)[1]) if fitting else None


def _address(table: pd.DataFrame) -> str:
    """Of the values alone, so that neither parquet's version nor its compression moves it."""
    digest = hashlib.sha256("\0".join(table["symbol"].astype(str)).encode())
    digest.update(table["date"].to_numpy().astype("datetime64[D]").astype("<i8").tobytes())
    for name in NUMBERS:
        digest.update(np.ascontiguousarray(table[name].to_numpy(), dtype="<f8").tobytes())
    return digest.hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    """Under a temporary name, synced, then renamed: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
