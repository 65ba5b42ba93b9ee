"""Immutable snapshots of what a source answered, named after their content.

<name>.parquet holds raw bars and events. <name>.json says what was requested and when; it does not affect the name.
"""

import hashlib
import json
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hftraining.core.files import replacing, write_json_atomically
from hftraining.market.config import MarketDataError, StocksConfig

SNAPSHOT = re.compile(r"[0-9a-f]{16}\Z")
RAW = ("open", "high", "low", "close", "adj_close", "volume", "split", "dividend")  # beside symbol and date
TRAP_ROWS = 100_000


def asked_span(config: StocksConfig) -> str:
    """The days that a config asks for, in words."""
    return f"from {config.start or 'the first day'} to {config.end or 'today'}"


def save_snapshot(folder: Path, raw: pd.DataFrame, request: dict[str, Any]) -> str:
    """Store raw bars under the name of their content, and the request beside them; returns the name."""
    name = _address(raw)
    asked = {**request, "retrieved": datetime.now(UTC).isoformat(timespec="seconds"), "yfinance": version("yfinance")}
    manifest = {
        "rows": len(raw),
        "first": str(raw["date"].min().date()),
        "last": str(raw["date"].max().date()),
        "requests": [*_requests(folder / f"{name}.json"), asked],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{name}.parquet") as temporary:
            raw.to_parquet(temporary, index=False, compression="zstd")
        write_json_atomically(folder / f"{name}.json", manifest)
    except OSError as error:
        raise MarketDataError(f"stocks.snapshots={folder} cannot be written: {error}") from error
    return name


def load_snapshot(folder: Path, name: str) -> pd.DataFrame:
    """The raw bars of a stored snapshot. Raises MarketDataError if it is absent or does not match its name."""
    if not SNAPSHOT.match(name):
        raise MarketDataError(f"stocks.snapshot={ascii(name)[1:-1][:60]} is not a name of 16 hexadecimal digits")
    path = folder / f"{name}.parquet"
    if not path.is_file():
        stored = sorted(file.stem for file in folder.glob("*.parquet"))
        raise MarketDataError(
            f"stocks.snapshot={name} is not in {folder}; stored there: {', '.join(stored[:10]) or 'none'}"
        )
    try:
        rows = int(pq.read_metadata(path).num_rows)
        if rows > TRAP_ROWS and path.stat().st_size < rows:  # no real bars; it would fill the memory
            raise ValueError(f"it claims {rows:,} rows")
        raw = pq.read_table(path, columns=["symbol", "date", *RAW]).to_pandas()
        raw["date"] = raw["date"].astype("datetime64[s]")  # parquet has no seconds
        if len(raw) and _address(raw) == name:
            return raw
        cause = None
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        cause = error
    raise MarketDataError(
        f"{path} was altered or damaged, since its content does not match its name: restore it, or fetch it again with "
        "stocks.refresh=true"
    ) from cause


def _address(raw: pd.DataFrame) -> str:
    """A hash of the values alone, so that neither parquet's version nor its compression changes it."""
    digest = hashlib.sha256("\0".join(raw["symbol"].astype(str)).encode())
    digest.update(raw["date"].to_numpy().astype("datetime64[D]").astype("<i8").tobytes())
    for name in RAW:
        values = raw[name].to_numpy().astype("<f8") + 0.0  # so that -0 and 0 are one zero; below, all NaNs are one NaN
        digest.update(np.where(np.isnan(values), np.nan, values).tobytes())
    return digest.hexdigest()[:16]


def refuse_uncovered(folder: Path, raw: pd.DataFrame, config: StocksConfig, symbols: list[str]) -> None:
    """Raise MarketDataError for symbols or days that a snapshot does not cover."""
    name, stored = config.snapshot, set(raw["symbol"])
    if lacking := [symbol for symbol in symbols if symbol not in stored]:
        raise MarketDataError(f"stocks.snapshot={name} has no {', '.join(lacking)}; it has {', '.join(sorted(stored))}")
    first, last = str(raw["date"].min().date()), str(raw["date"].max().date())
    # Days before the first bar and after the last one are covered if they were requested.
    for asked in _requests(folder / f"{name}.json"):
        first = min(first, asked["start"] or "")
        last = max(last, asked["end"] or asked["retrieved"][:10])
    if (config.start or last) < first or (config.end or first) > last:
        raise MarketDataError(
            f"stocks.snapshot={name} covers {first} to {last}, not all {asked_span(config)}: choose other dates, or "
            "leave stocks.snapshot out to ask Yahoo"
        )


def newest_snapshot(folder: Path, request: dict[str, Any]) -> tuple[str, str] | None:
    """Time of retrieval and name of the newest snapshot of exactly this request."""
    found = [
        (asked["retrieved"], manifest.stem)
        for manifest in folder.glob("*.json")
        for asked in _requests(manifest)
        if all(asked.get(key) == value for key, value in request.items())
    ]
    return max(found, default=None)


def _requests(manifest: Path) -> list[dict[str, Any]]:
    """The requests that a snapshot answered (symbols, start, end, retrieved, yfinance); none without a manifest."""
    if not manifest.exists():
        return []
    try:
        requests = json.loads(manifest.read_text(encoding="utf-8"))["requests"]
        if all({"symbols", "start", "end", "retrieved"} <= asked.keys() for asked in requests):
            return requests
        cause = None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        cause = error
    raise MarketDataError(f"{manifest} is damaged: delete it, its snapshot stays usable by name") from cause
