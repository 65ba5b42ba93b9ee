"""The yfinance source: daily bars of some symbols, kept as immutable snapshots named after their content.

Yahoo rewrites adjusted closes at every dividend, so a snapshot holds what does not change: bars adjusted for splits
alone (as Yahoo's Close is), with their splits and dividends. dividends.py adjusts them for the dividends.
"""

import json
import logging
import random
import re
import warnings
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.snapshots import (
    Listing,
    asked_span,
    listings_of,
    load_snapshot,
    newest_snapshot,
    refuse_changed_listings,
    refuse_currencies,
    refuse_uncovered,
    save_snapshot,
)
from hftraining.market.talk import Over, Politeness, Refused, Talk, curl_words, no_connection, why_unsafe
from hftraining.market.wording import excluding, plain

SYMBOL = re.compile(r"\^?[A-Z0-9]{1,10}(?:[.\-=][A-Z0-9]{1,6}){0,2}\Z")
PRICES = ["open", "high", "low", "close"]
SETTLED = pd.Timedelta(minutes=30)  # after the close, until the closing auction has reached Yahoo's bar
OFFLINE = "stocks=sample works offline"
LISTING = {"currency": "currency", "exchange": "exchangeName", "timezone": "exchangeTimezoneName"}  # our name, Yahoo's
# Met in an answer of another shape by yfinance, pandas and us; nesting and years beyond all bounds are RuntimeErrors.
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


class SourceUnreachable(MarketDataError):
    """No connection to Yahoo at all."""


class UnknownSymbol(MarketDataError):
    """Yahoo has no such symbol, or no bars of it on these days."""


class RateLimited(MarketDataError):
    """Yahoo limits our requests."""


class BadResponse(MarketDataError):
    """Yahoo answered without usable bars."""


POLITENESS = Politeness()


class Answer(NamedTuple):
    """What read_yahoo returns."""

    table: pd.DataFrame
    events: pd.DataFrame
    source: str
    notes: list[str]
    exchanges: dict[str, str]


def read_yahoo(config: StocksConfig, session: Any = None) -> Answer:
    """Bars not yet adjusted for dividends, from a stored snapshot or, where none fits, from Yahoo.

    table: symbol (categorical), date (session, without time zone), open, high, low, close, volume, adj_close (Yahoo's
    own), sorted by symbol and date, from stocks.start to stocks.end inclusive. events: symbol, date, split (new
    shares for an old one, 0 if none), dividend (currency a share, 0 if none). source: "yahoo snapshot " and its name.
    notes: one sentence each. exchanges: by symbol, as Yahoo calls them.
    session: a curl_cffi Session to use instead of a new one. Raises SourceUnreachable, UnknownSymbol, RateLimited,
    BadResponse, or their parent MarketDataError for a snapshot that cannot be used, for symbols in several currencies,
    and for a symbol whose currency or time zone is another than in the snapshots of it.
    """
    symbols = _checked_symbols(config)
    folder, notes = Path(config.snapshots), []
    request = {"symbols": sorted(symbols), "start": config.start, "end": config.end}
    if config.snapshot:
        name = config.snapshot
        raw = load_snapshot(folder, name)
        refuse_uncovered(folder, raw, config, symbols)
    elif stored := None if config.refresh else newest_snapshot(folder, request):
        retrieved, name = stored
        raw = load_snapshot(folder, name)
        notes = [
            f"snapshot {name}, retrieved {plain(retrieved[:10])}, was reused for the same request; "
            "stocks.refresh=true asks Yahoo again"
        ]
    else:
        raw, notes, listings = _download(symbols, config, session)
        refuse_currencies(listings, symbols)  # before it is stored
        notes += refuse_changed_listings(folder, listings)
        name = save_snapshot(folder, raw, request, listings)
    listings = listings_of(folder, name)
    notes += refuse_currencies(listings, symbols)
    raw = _between(raw[raw["symbol"].isin(symbols)], config)
    raw = raw.assign(symbol=pd.Categorical(raw["symbol"], sorted(symbols)))
    happened = (raw["split"] != 0) | (raw["dividend"] != 0)
    events = raw.loc[happened, ["symbol", "date", "split", "dividend"]].astype({"symbol": str})
    barless = raw[PRICES].isna().all(axis=1)  # an event on a day without trading
    table = raw.loc[~barless, ["symbol", "date", *PRICES, "volume", "adj_close"]]
    for symbol in symbols:
        if not (table["symbol"] == symbol).any():
            raise _no_bars(symbol, config)
    exchanges = {symbol: place for symbol in symbols if (place := listings.get(symbol, {}).get("exchange"))}
    return Answer(
        table.reset_index(drop=True), events.reset_index(drop=True), f"yahoo snapshot {name}", notes, exchanges
    )


def _checked_symbols(config: StocksConfig) -> list[str]:
    """The symbols to ask for, all checked before the first request, because each becomes part of a URL."""
    wrong = [symbol for symbol in config.symbols if not SYMBOL.match(symbol)]
    if wrong:
        upper = wrong[0].strip().upper()
        hint = f"did you mean {upper}?" if SYMBOL.match(upper) else "write it as AAPL, BRK-B, 7203.T or ^GSPC"
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise UnknownSymbol(f"stocks.symbols: {ascii(wrong[0])[:60]}{more} cannot be a symbol of Yahoo; {hint}")
    symbols = [symbol for symbol in dict.fromkeys(config.symbols) if symbol not in config.exclude]
    if not symbols:
        raise MarketDataError(f"{excluding(config.exclude)} leaves no symbol")
    return symbols


def _between(raw: pd.DataFrame, config: StocksConfig) -> pd.DataFrame:
    return raw[raw["date"].between(config.start or raw["date"].min(), config.end or raw["date"].max())]


def _no_bars(symbol: str, config: StocksConfig, reason: str = "") -> UnknownSymbol:
    return UnknownSymbol(
        f"{symbol}: Yahoo has no bars {asked_span(config)}{reason}: change stocks.start or stocks.end, or leave it out"
    )


# Asking Yahoo.


def _download(
    symbols: list[str], config: StocksConfig, session: Any
) -> tuple[pd.DataFrame, list[str], dict[str, Listing]]:
    """Raw bars and events of all symbols, notes, and their listings; or the first failure."""
    from curl_cffi.requests import Session
    from yfinance.const import _BASE_URL_

    _tame_yfinance()
    with (
        Session(impersonate="chrome") if session is None else nullcontext(session) as used,
        Talk(used, POLITENESS) as talk,
        ThreadPoolExecutor(talk.manners.workers) as pool,
    ):
        if closed := talk.knock(f"{_BASE_URL_}/"):
            raise _unreachable(closed) from closed
        try:
            answers = [pool.submit(_ask_until_answered, symbol, config, talk) for symbol in symbols]
            done, _ = wait(answers, return_when=FIRST_EXCEPTION)
        finally:  # also when interrupted: what runs ends at its next request, what waits never starts
            talk.over.set()
            pool.shutdown(wait=False, cancel_futures=True)
        failures = [failure for answer in done if (failure := answer.exception())]
        if failures:  # an Over only says that another symbol failed
            raise min(failures, key=lambda failure: isinstance(failure, Over))
        bars, notes, listings = zip(*(answer.result() for answer in answers), strict=True)
    raw = pd.concat(bars).sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    return raw, sorted({note for note in notes if note}), dict(zip(symbols, listings, strict=True))


def _tame_yfinance() -> None:
    """Make yfinance raise errors instead of printing them, and keep no caches on disk."""
    import yfinance
    from yfinance import base, cache

    yfinance.config.debug.hide_exceptions = False
    base._tz_info_fetch_ctr = 2  # else a time zone not found is looked for at another address, hiding the reason
    # Its caches on disk are a pickle of cookies and a SQLite file that two first users at once find locked.
    cache._TzCacheManager._tz_cache = cache._TzCacheDummy()
    cache._CookieCacheManager._Cookie_cache = cache._CookieCacheDummy()
    warnings.filterwarnings("ignore", module=r"yfinance\b")  # pandas 4 deprecations, at every call
    logging.getLogger("yfinance").setLevel(logging.CRITICAL)  # our errors say it, in one line


def _ask_until_answered(symbol: str, config: StocksConfig, talk: Talk) -> tuple[pd.DataFrame, str, Listing]:
    from curl_cffi.requests.exceptions import RequestException
    from yfinance.data import YfData
    from yfinance.exceptions import YFException

    manners = talk.manners
    for attempt in range(1, manners.tries + 1):
        talk.await_turn()
        YfData.cache_get.cache_clear()  # else yfinance would repeat a bad answer from memory
        try:
            return _ask(symbol, config, talk)
        except (RequestException, YFException, Refused, *UNREADABLE) as error:
            failure = error if isinstance(error, MarketDataError) else _failure(symbol, config, error, attempt)
            if not isinstance(failure, (RateLimited, BadResponse)):
                raise failure from error
            asked_for = error.retry_after if isinstance(error, Refused) else None
            backoff = manners.first_wait * 2 ** (attempt - 1) * (1 + random.random())
            if attempt == manners.tries or (asked_for or 0) > manners.longest_wait:
                raise failure from error
        talk.pause(max(min(backoff, manners.longest_wait), asked_for or 0))
    raise AssertionError("unreachable: the last try returns or raises")


def _ask(symbol: str, config: StocksConfig, talk: Talk) -> tuple[pd.DataFrame, str, Listing]:
    """Raw bars and events of one symbol, a note if today's session, not yet over, was left out, and the listing."""
    import yfinance

    ticker = yfinance.Ticker(symbol, session=talk.session)
    end = str(date.fromisoformat(config.end) + timedelta(days=1)) if config.end else None  # theirs is exclusive
    answer = ticker.history(
        period=None if config.start else "max",
        start=config.start,
        end=end,
        interval="1d",
        auto_adjust=False,
        actions=True,
    )
    about = ticker.history_metadata
    if about.get("symbol", symbol) != symbol or about.get("dataGranularity", "1d") != "1d":
        what = f"{plain(about.get('dataGranularity'))} bars of {plain(about.get('symbol'))}"
        raise UnknownSymbol(f"{symbol}: Yahoo answered with {what}: leave it out of stocks.symbols")
    answer, note = _without_today(answer, about)
    if answer["Close"].isna().all():
        raise BadResponse(f"{symbol}: Yahoo answered without any bar: try again later; {OFFLINE}")
    days = pd.DatetimeIndex(answer.index).tz_localize(None).normalize().astype("datetime64[s]")
    bars = pd.DataFrame({"symbol": symbol, "date": days})
    for name, theirs in (*((name, name.title()) for name in PRICES), ("adj_close", "Adj Close"), ("volume", "Volume")):
        bars[name] = answer[theirs].to_numpy("float64")
    bars["split"] = answer["Stock Splits"].to_numpy("float64")
    bars["dividend"] = answer["Dividends"].to_numpy("float64")
    if "Capital Gains" in answer:  # funds pay them out as they do dividends
        bars["dividend"] += answer["Capital Gains"].to_numpy("float64")
    bars = _between(bars, config)
    if bars["close"].isna().all():
        raise _no_bars(symbol, config)
    last = bars["date"][bars["close"].notna()].max()
    # Yahoo may still change an event after the last bar.
    return bars[bars["date"] <= last], note, {ours: _word(about.get(theirs)) for ours, theirs in LISTING.items()}


def _word(value: object) -> str | None:
    """A name that Yahoo gave, None where it gave none or something that is no name."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_/+\-]{1,40}", value) else None


def _without_today(answer: pd.DataFrame, about: Any) -> tuple[pd.DataFrame, str]:
    """The answer without the bar of an open session, whose close and volume are not final; and a note."""
    index = pd.DatetimeIndex(answer.index)
    now = pd.Timestamp.now("UTC").tz_convert(index.tz)
    today = index >= now.normalize()
    closes = ((about.get("currentTradingPeriod") or {}).get("regular") or {}).get("end")
    over = isinstance(closes, pd.Timestamp) and closes.date() == now.date() and now >= closes + SETTLED
    if over or not today.any():
        return answer, ""
    return answer[~today], f"the session of {now.date()} is not over and was left out"


def _failure(symbol: str, config: StocksConfig, error: Exception, tries: int) -> MarketDataError:
    """Our error for an error of yfinance, curl or the server."""
    from curl_cffi.requests.exceptions import RequestException
    from yfinance.exceptions import YFRateLimitError

    asked = f"asked {tries} times" if tries > 1 else "asked once"
    status, reason = (error.status, error.reason) if isinstance(error, Refused) else (0, "")
    if status == 429 or isinstance(error, YFRateLimitError):
        pause = getattr(error, "retry_after", None)
        when = f"in {pause:.0f} s, as Yahoo asks" if pause else "in some minutes"
        return RateLimited(f"{symbol}: Yahoo limits requests (HTTP 429, {asked}): run again {when}; {OFFLINE}")
    if status == 404 and reason:
        return UnknownSymbol(f"{symbol}: Yahoo does not know this symbol ({reason}): correct stocks.symbols")
    if 400 <= status < 500 and reason:
        return _no_bars(symbol, config, f" ({reason})")
    if isinstance(error, RequestException):
        if no_connection(error):
            return _unreachable(error)
        if unsafe := why_unsafe(error):
            return BadResponse(f"{symbol}: Yahoo's answer {unsafe}, and was not followed or read: {OFFLINE}")
        return BadResponse(f"{symbol}: Yahoo's answer broke off ({curl_words(error)}, {asked}): try again; {OFFLINE}")
    what = f"HTTP {status}" if status else plain(error)
    if isinstance(error, UNREADABLE):
        what = "no JSON" if isinstance(error, (json.JSONDecodeError, RecursionError)) else "a part of it is missing"
    return BadResponse(
        f"{symbol}: Yahoo answered with something other than a chart ({what}, {asked}): try again later; {OFFLINE}"
    )


def _unreachable(error: Exception) -> SourceUnreachable:
    return SourceUnreachable(
        f"the source, Yahoo, could not be reached ({curl_words(error)}): check the network or proxy; {OFFLINE}"
    )
