"""Immutable snapshots of what a source answered, named after their content.

<name>.parquet holds raw bars and events. <name>.json says what was requested and when; it does not affect the name.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hftraining.core.files import replacing, write_json_atomically
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.parquet import Parquet
from hftraining.market.wording import excluding, listed, plain, plain_path

SNAPSHOT = re.compile(r"[0-9a-f]{16}\Z")
MOST_MANIFEST_BYTES = 2**24
FIRST_DAY, LAST_DAY = pd.Timestamp("1677-12-31"), pd.Timestamp("2262-01-01")
RAW = ("open", "high", "low", "close", "adj_close", "volume", "split", "dividend")  # beside symbol and date

Listing = dict[str, str | None]  # currency, exchange and timezone, as Yahoo calls them; None where it does not


def asked_span(config: StocksConfig) -> str:
    """The days that a config asks for, in words."""
    return f"from {config.start or 'the first day'} to {config.end or 'today'}"


def save_snapshot(
    folder: Path, raw: pd.DataFrame, request: dict[str, Any], listings: Mapping[str, Listing] | None = None
) -> str:
    """Store raw bars under the name of their content, and the request and the listings beside them; returns the name.

    listings: of symbols, what refuse_changed_listings and refuse_currencies know them by.
    """
    name = _address(raw)
    manifest_path = folder / f"{name}.json"
    asked = {**request, "retrieved": datetime.now(UTC).isoformat(timespec="seconds"), "yfinance": version("yfinance")}
    manifest = {
        "rows": len(raw),
        "first": str(raw["date"].min().date()),
        "last": str(raw["date"].max().date()),
        "requests": [*_requests(manifest_path), asked],
        "listings": listings_of(folder, name) | dict(listings or {}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{name}.parquet") as temporary:
            raw.to_parquet(temporary, index=False, compression="zstd")
        write_json_atomically(manifest_path, manifest)
    except OSError as error:
        raise MarketDataError(f"stocks.snapshots={plain_path(folder)} cannot be written: {plain(error)}") from error
    return name


def load_snapshot(folder: Path, name: str) -> pd.DataFrame:
    """The raw bars of a stored snapshot. Raises MarketDataError if it is absent or does not match its name."""
    if not SNAPSHOT.match(name):
        raise MarketDataError(f"stocks.snapshot={ascii(name)[1:-1][:60]} is not a name of 16 hexadecimal digits")
    path = folder / f"{name}.parquet"
    if not path.is_file():
        stored = sorted(file.stem for file in folder.glob("*.parquet"))
        raise MarketDataError(
            f"stocks.snapshot={name} is not in {plain_path(folder)}; stored there: {listed(stored) or 'none'}"
        )
    try:
        raw = Parquet(str(path)).read(["symbol", "date", *RAW]).to_pandas()
        raw = raw.astype({"symbol": str, "date": "datetime64[s]"} | dict.fromkeys(RAW, "float64"))  # whoever wrote them
        if not raw["date"].between(FIRST_DAY, LAST_DAY).all():
            raise ValueError("days outside the calendar")
        if len(raw) and _address(raw) == name:
            return raw
        cause = None
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        cause = error
    raise MarketDataError(
        f"{plain_path(path)} was altered or damaged, since its content does not match its name: restore it, or fetch "
        "it again with stocks.refresh=true"
    ) from cause


def with_snapshot(stocks: StocksConfig, name: str, outputs: Path | None, advice: str) -> StocksConfig:
    """The stocks from a snapshot that was made before, wherever it lies now: in their folder, or below `outputs`.

    outputs: the folder of the runs, None where it is not known: ./outputs. Raises MarketDataError, with what to do.
    """
    places = dict.fromkeys((Path(stocks.snapshots), (outputs or Path("outputs")) / "snapshots"))
    for place in places:
        if (place / f"{name}.parquet").is_file():
            return replace(stocks, snapshot=name, snapshots=str(place), refresh=False)
    looked = " nor in ".join(map(plain_path, places))
    raise MarketDataError(f"snapshot missing: {ascii(name)[1:-1][:60]} is not in {looked}: {advice}")


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
        raise MarketDataError(f"stocks.snapshot={name} has no {listed(lacking)}; it has {listed(sorted(stored))}")
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


def listings_of(folder: Path, name: str) -> dict[str, Listing]:
    """What is known of the listings in a snapshot, by symbol: nothing of one that was stored without them."""
    return _manifest(folder / f"{name}.json").get("listings", {})


def refuse_changed_listings(folder: Path, listings: Mapping[str, Listing]) -> list[str]:
    """Notes on symbols that have moved to another exchange since they were last stored.

    Raises MarketDataError for one that is now in another currency or time zone: it is another listing, and its prices
    cannot be set beside the stored ones.
    """
    stored: dict[str, tuple[str, str, Listing]] = {}
    for path in folder.glob("*.json"):
        manifest = _manifest(path)
        retrieved = max((asked["retrieved"] for asked in manifest["requests"]), default="")
        for symbol, known in manifest.get("listings", {}).items():
            stored[symbol] = max(stored.get(symbol, ("", "", {})), (retrieved, path.stem, known), key=lambda s: s[0])
    notes = []
    for symbol, now in listings.items():
        _, name, before = stored.get(symbol, ("", "", now))
        for what in ("currency", "timezone"):
            if before.get(what) and before[what] != now.get(what):
                raise MarketDataError(
                    f"{symbol}: Yahoo now answers with the {what} {now.get(what) or 'left out'}, but the stored "
                    f"snapshot {name} has {plain(before[what], 40)}: another listing; name another folder as "
                    f"stocks.snapshots to begin anew, or leave it out with {excluding([symbol])}"
                )
        if before.get("exchange") and before["exchange"] != now.get("exchange"):
            was = plain(before["exchange"], 40)
            notes.append(
                f"{symbol}: its exchange is {now.get('exchange') or 'left out'}, in snapshot {name} it was {was}"
            )
    return notes


def refuse_currencies(listings: Mapping[str, Listing], symbols: list[str]) -> list[str]:
    """A note on symbols whose currency is not known. Raises MarketDataError for symbols in several currencies."""
    currencies: dict[str, list[str]] = {}
    for symbol in symbols:
        currencies.setdefault(listings.get(symbol, {}).get("currency") or "", []).append(symbol)
    unknown = currencies.pop("", [])
    if len(currencies) > 1:
        (most, usual), *others = sorted(currencies.items(), key=lambda item: -len(item[1]))
        other = [symbol for _, group in others for symbol in group]
        raise MarketDataError(
            f"{listed(usual, 3)} trade in {plain(most, 8)}, but {listed(other, 3)} in {listed(c for c, _ in others)}: "
            f"one account cannot add them up; leave some out, e.g. with {excluding(other)}"
        )
    if not unknown:
        return []
    taken = f"taken to be {plain(next(iter(currencies)), 8)}" if currencies else "taken to be one and the same"
    return [f"the currency of {listed(unknown)} is not known and {taken}"]


def _requests(manifest: Path) -> list[dict[str, Any]]:
    """The requests that a snapshot answered (symbols, start, end, retrieved, yfinance); none without a manifest."""
    return _manifest(manifest)["requests"]


def _manifest(path: Path) -> dict[str, Any]:
    """A manifest whose requests and listings have the shapes that they were written in; without a file, no requests."""
    if not path.exists():
        return {"requests": []}
    try:
        if not path.is_file() or path.stat().st_size > MOST_MANIFEST_BYTES:
            raise ValueError("not a file of a manifest's size")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for asked in manifest["requests"]:
            texts = [
                asked["retrieved"],
                *asked["symbols"],
                *(asked[end] for end in ("start", "end") if asked[end] is not None),
            ]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a request with something other than texts")
        for known in manifest.get("listings", {}).values():
            if not all(value is None or isinstance(value, str) for value in known.values()):
                raise ValueError("a listing with something other than texts")
        return manifest
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MarketDataError(f"{plain_path(path)} is damaged: delete it, its snapshot stays usable by name") from error
