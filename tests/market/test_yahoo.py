"""The yahoo source through the real yfinance and curl, against a server on the loopback."""

import contextlib
import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from curl_cffi.requests import Session

from hftraining.market import dividends, snapshots, yahoo
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.prices import load_bars
from hftraining.market.talk import seconds_to_wait
from tests.commands import train_here
from tests.yahoo_server import DOWN, NO_DATA, TOO_MANY, Answer, Chart, YahooServer, refusal, serving

DAYS = np.datetime_as_string(np.busday_offset("2014-01-06", np.arange(100), roll="forward"))


def read_adjusted(config: StocksConfig, session: Session) -> tuple:
    """Bars adjusted for dividends, events, source and notes, in the order in which load_bars asks for them."""
    table, events, source, notes, _ = yahoo.read_yahoo(config, session)
    table, doubts = dividends.adjusted(table, events)
    return table, events, source, notes + doubts


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YahooServer]:
    with serving(tmp_path_factory.mktemp("authority")) as server:
        yield server


@pytest.fixture
def server(running: YahooServer, monkeypatch: pytest.MonkeyPatch) -> YahooServer:
    monkeypatch.setattr(yahoo, "POLITENESS", yahoo.Politeness(tries=3, first_wait=0.01, connect_seconds=1.0))
    running.clear()
    return running


@pytest.fixture
def fetch(server: YahooServer, tmp_path: Path) -> Iterator[Callable]:
    """read_adjusted for some symbols, through a session that trusts the server and goes through it."""
    with Session(impersonate="chrome", verify=server.ca_file, proxies={"https": server.proxy}) as session:

        def fetch(*symbols: str, **settings: object) -> tuple:
            config = StocksConfig(
                source="yahoo", symbols=list(symbols), snapshots=str(tmp_path / "snapshots"), **settings
            )
            return read_adjusted(config, session)

        yield fetch


def flat_chart(symbol: str, price: float = 50.0, days: list[str] | np.ndarray = DAYS, **more: object) -> Chart:
    """A price that never moves, with a range around it."""
    return Chart(symbol, [(str(day), price, price * 1.01, price * 0.99, price, price, 1000) for day in days], **more)


def only_line_of(caught: pytest.ExceptionInfo) -> str:
    message = str(caught.value)
    assert "\n" not in message and message.isascii()
    return message


def test_bars_come_back_as_the_source_gave_them(server, fetch):
    rows = [(day, 10.0 + n, 11.0 + n, 9.0 + n, 10.5 + n, 10.5 + n, 100 + n) for n, day in enumerate(DAYS)]
    server.charts["AAPL"] = Chart("AAPL", rows)
    table, events, source, notes = fetch("AAPL")
    assert list(table.columns) == ["symbol", "date", "open", "high", "low", "close", "volume"]
    assert list(table["symbol"].unique()) == ["AAPL"]
    assert [str(day.date()) for day in table["date"]] == list(DAYS)
    expected = np.array([row[1:5] + row[6:] for row in rows])
    np.testing.assert_array_equal(table[["open", "high", "low", "close", "volume"]], expected)
    assert events.empty and not notes
    assert source.startswith("yahoo snapshot ")


def test_a_dividend_scales_all_bars_before_its_ex_date_and_a_split_is_left_alone(server, fetch):
    # By hand: a dividend of 2 after a close of 40 leaves 38/40 = 0.95; one of 0.5 after a close of 50 leaves 0.99.
    # The split is already in the prices of the source, so it changes nothing.
    closes = [40.0, 40.0, 50.0, 50.0, 25.0]
    factors = [0.95 * 0.99, 0.95 * 0.99, 0.99, 1.0, 1.0]
    rows = [(day, c - 1, c + 2, c - 2, c, c * f, 1000) for day, c, f in zip(DAYS[:5], closes, factors, strict=True)]
    server.charts["KO"] = Chart("KO", rows, {DAYS[2]: 2.0, DAYS[3]: 0.5}, {DAYS[1]: (7, 1)})
    table, events, _, notes = fetch("KO")
    np.testing.assert_allclose(table["close"], [37.62, 37.62, 49.5, 50, 25], rtol=1e-12)
    np.testing.assert_allclose(table["open"], [39 * 0.9405, 39 * 0.9405, 49 * 0.99, 49, 24], rtol=1e-12)
    np.testing.assert_allclose(table["high"], [42 * 0.9405, 42 * 0.9405, 52 * 0.99, 52, 27], rtol=1e-12)
    np.testing.assert_allclose(table["low"], [38 * 0.9405, 38 * 0.9405, 48 * 0.99, 48, 23], rtol=1e-12)
    np.testing.assert_allclose(table["volume"] * table["close"], np.array(closes) * 1000, rtol=1e-12)
    assert events.values.tolist() == [
        ["KO", pd.Timestamp(DAYS[1]), 7.0, 0.0],
        ["KO", pd.Timestamp(DAYS[2]), 0.0, 2.0],
        ["KO", pd.Timestamp(DAYS[3]), 0.0, 0.5],
    ]
    assert not notes


def test_the_return_over_an_ex_date_is_that_of_the_holder(server, fetch):
    rows = [(DAYS[0], 40, 40, 40, 40, 38, 1), (DAYS[1], 38, 38, 38, 38, 38, 1)]  # falls by exactly the dividend
    server.charts["KO"] = Chart("KO", rows, {DAYS[1]: 2.0})
    close = fetch("KO")[0]["close"]
    assert close[1] / close[0] == pytest.approx(1.0, rel=1e-12)


def test_an_adjustment_that_differs_from_adj_close_gives_a_warning(server, fetch):
    server.charts["KO"] = flat_chart("KO", dividends={DAYS[3]: 0.5})  # 1 %, which adj close ignores
    (note,) = fetch("KO")[3]
    assert "KO" in note and "Adj Close" in note and "1.0%" in note


def test_a_dividend_paid_after_the_last_bar_gives_no_warning(server, fetch):
    server.charts["KO"] = Chart("KO", [(day, 50, 50, 50, 50, 48, 1) for day in DAYS])
    assert not fetch("KO", end="2014-12-31")[3]


def test_a_dividend_announced_for_a_day_to_come_changes_nothing_yet(server, fetch):
    server.charts["KO"] = flat_chart("KO", dividends={"2014-08-01": 2.0})
    table, events, _, notes = fetch("KO")
    assert (table["close"] == 50.0).all() and len(table) == len(DAYS)
    assert events.empty and not notes


def test_a_429_before_a_good_answer_is_waited_out(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    server.before["AAPL"] = [Answer(429, b"Too Many Requests", {"Retry-After": "1"})]
    started = time.monotonic()
    assert len(fetch("AAPL")[0]) == len(DAYS)
    assert time.monotonic() - started > 1  # what Retry-After asked for
    assert server.asked_for("AAPL") == 3  # 429, then time zone and bars


def test_repeated_429s_end_as_rate_limited(server, fetch):
    server.always["AAPL"] = TOO_MANY
    with pytest.raises(yahoo.RateLimited, match=r"AAPL: Yahoo limits requests .*429") as caught:
        fetch("AAPL")
    assert "stocks=sample works offline" in only_line_of(caught)
    assert server.asked_for("AAPL") == 3  # the tries, one request each


def test_a_retry_after_of_an_hour_is_not_waited_for(server, fetch):
    server.always["AAPL"] = Answer(429, b"", {"Retry-After": "3600"})
    with pytest.raises(yahoo.RateLimited, match="run again in 3600 s"):
        fetch("AAPL")
    assert server.asked_for("AAPL") == 1


def test_a_retry_after_may_be_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert seconds_to_wait(soon.strftime("%a, %d %b %Y %H:%M:%S GMT")) == pytest.approx(90, abs=3)
    assert seconds_to_wait("soon") is None and seconds_to_wait(None) is None


BODY = flat_chart("AAPL").body()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (DOWN, "HTTP 503"),
        (Answer(body=BODY, cut=True), "broke off"),
        (Answer(body=BODY[: len(BODY) // 2]), "no JSON"),
        (Answer(), "no JSON"),
        (Answer(body=b"[]"), "a part of it is missing"),
        (NO_DATA, "a part of it is missing"),
        (Answer(404, b"<html>no such page</html>"), "HTTP 404"),
    ],
    ids=["503", "cut connection", "half the JSON", "empty body", "other JSON", "no result", "404 of another kind"],
)
@pytest.mark.slow
def test_a_bad_answer_is_requested_again_and_reported_if_it_stays(server, fetch, trouble, words):
    server.always["AAPL"] = trouble
    with pytest.raises(yahoo.BadResponse, match=f"^AAPL: .*{words}.*asked 3 times") as caught:
        fetch("AAPL")
    assert "stocks=sample works offline" in only_line_of(caught)
    assert server.asked_for("AAPL") == 3

    server.always.clear()
    server.charts["AAPL"], server.before["AAPL"] = flat_chart("AAPL"), [trouble, trouble]
    assert len(fetch("AAPL")[0]) == len(DAYS)


def test_an_unknown_symbol_is_named_and_not_asked_again(server, fetch):
    with pytest.raises(yahoo.UnknownSymbol, match=r"^ZZZZ: .*does not know.*No data found") as caught:
        fetch("ZZZZ")
    only_line_of(caught)
    assert server.asked_for("ZZZZ") == 1


def test_one_unknown_symbol_among_good_ones_fails_the_fetch_and_stores_nothing(server, fetch, tmp_path):
    server.charts |= {symbol: flat_chart(symbol) for symbol in ("AAPL", "MSFT")}
    with pytest.raises(yahoo.UnknownSymbol, match=r"^ZZZZ"):
        fetch("AAPL", "ZZZZ", "MSFT")
    assert not list(tmp_path.rglob("*.parquet"))


def test_days_without_bars_are_reported_with_the_reason_of_the_source(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    with pytest.raises(yahoo.UnknownSymbol, match=r"no bars from 1990-01-01 to 1990-02-01 \(Data doesn't exist"):
        fetch("AAPL", start="1990-01-01", end="1990-02-01")


def test_control_characters_of_a_server_do_not_reach_the_terminal(server, fetch):
    server.always["AAPL"] = refusal(404, "bad\x1b[31m\nsymbol \u2603" + "x" * 1000)
    with pytest.raises(yahoo.UnknownSymbol) as caught:
        fetch("AAPL")
    assert "\x1b" not in only_line_of(caught) and len(str(caught.value)) < 300


def test_bars_of_another_symbol_are_refused(server, fetch):
    server.charts["FB"] = flat_chart("META")
    with pytest.raises(yahoo.UnknownSymbol, match="FB: Yahoo answered with 1d bars of META"):
        fetch("FB")


@pytest.mark.parametrize(
    "symbol", ["../../v1/test/getcrumb", "AAPL?x=1", "A B", "", "AAPL\n", "aapl", "AAPL#", "\u0410APL", "A" * 11, "%2e"]
)
def test_a_hostile_symbol_is_refused_before_any_request(server, fetch, symbol):
    server.charts["MSFT"] = flat_chart("MSFT")
    with pytest.raises(yahoo.UnknownSymbol, match=r"^stocks\.symbols: ") as caught:
        fetch("MSFT", symbol)
    only_line_of(caught)
    assert not server.connections


@pytest.mark.parametrize("symbol", ["AAPL", "BRK-B", "^GSPC", "7203.T", "EURUSD=X", "BTC-USD"])
def test_usual_symbols_are_allowed(symbol):
    assert yahoo.SYMBOL.match(symbol)


def test_two_symbols_are_requested_in_parallel_and_come_back_sorted(server, fetch):
    server.charts |= {"MSFT": flat_chart("MSFT", 30.0), "AAPL": flat_chart("AAPL", 20.0)}
    server.delay = 0.2
    table = fetch("MSFT", "AAPL")[0]
    assert server.most_busy == 2
    assert list(table["symbol"]) == ["AAPL"] * len(DAYS) + ["MSFT"] * len(DAYS)
    assert table.groupby("symbol", observed=True)["close"].unique().str[0].to_dict() == {"AAPL": 20.0, "MSFT": 30.0}


def test_an_excluded_symbol_is_not_asked_for(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    fetch("AAPL", "ZZZZ", exclude=["ZZZZ"])
    assert not server.asked_for("ZZZZ")
    with pytest.raises(MarketDataError, match="leaves no symbol"):
        fetch("ZZZZ", exclude=["ZZZZ"])


def chart_of_today(closed_for_minutes: int) -> Chart:
    """Old bars and one of today, in a session that closed some minutes ago (or will, if negative)."""
    now = pd.Timestamp.now("America/New_York").floor("s")
    closes = now - pd.Timedelta(minutes=closed_for_minutes)
    if closes.date() != now.date():
        pytest.skip("it is about midnight in New York")
    hours = {"start": int(now.normalize().timestamp()), "end": int(closes.timestamp()), "gmtoffset": 0, "timezone": "E"}
    traded = (now - pd.Timedelta(seconds=1)).tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%S")
    return flat_chart("AAPL", days=[*DAYS, traded], meta={"currentTradingPeriod": {"regular": hours}})


def test_the_bar_of_an_open_session_is_left_out(server, fetch):
    server.charts["AAPL"] = chart_of_today(closed_for_minutes=-20)
    table, _, _, (note,) = fetch("AAPL")
    assert len(table) == len(DAYS)
    assert "is not over" in note


def test_the_bar_of_a_session_that_is_over_is_kept(server, fetch):
    server.charts["AAPL"] = chart_of_today(closed_for_minutes=40)
    table, _, _, notes = fetch("AAPL")
    assert len(table) == len(DAYS) + 1
    assert not notes


def test_start_and_end_are_inclusive(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    table = fetch("AAPL", start=DAYS[3], end=DAYS[7])[0]
    assert [str(day.date()) for day in table["date"]] == list(DAYS[3:8])


def test_without_a_network_the_offline_line_comes_quickly(monkeypatch, tmp_path):
    with socket.socket() as probe:  # a port that nobody listens on
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = StocksConfig(source="yahoo", symbols=["AAPL", "MSFT"], snapshots=str(tmp_path))
    started = time.monotonic()
    with Session(proxies={"https": f"http://127.0.0.1:{port}"}) as session, pytest.raises(yahoo.SourceUnreachable) as e:
        read_adjusted(config, session)
    assert time.monotonic() - started < 5
    assert "could not be reached" in only_line_of(e) and "stocks=sample works offline" in str(e.value)
    assert not list(tmp_path.iterdir())


def test_a_network_that_swallows_everything_gives_the_offline_line_too(monkeypatch, tmp_path):
    monkeypatch.setattr(yahoo, "POLITENESS", yahoo.Politeness(connect_seconds=0.5))
    config = StocksConfig(source="yahoo", symbols=["AAPL", "MSFT"], snapshots=str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, never answers
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with Session(proxies={"https": proxy}) as session, pytest.raises(yahoo.SourceUnreachable, match="offline"):
            read_adjusted(config, session)
        assert time.monotonic() - started < 3


def test_a_certificate_without_a_trusted_issuer_is_refused(server, tmp_path):
    config = StocksConfig(source="yahoo", symbols=["AAPL"], snapshots=str(tmp_path))
    with (
        Session(proxies={"https": server.proxy}) as session,
        pytest.raises(yahoo.SourceUnreachable, match="certificate"),
    ):
        read_adjusted(config, session)
    assert not server.requests


def test_the_same_request_is_answered_from_the_snapshot_without_the_network(server, fetch, tmp_path):
    server.charts |= {symbol: flat_chart(symbol, dividends={DAYS[2]: 0.1}) for symbol in ("AAPL", "MSFT")}
    first = fetch("AAPL", "MSFT")
    server.clear()
    second = fetch("MSFT", "AAPL")  # the order is not part of the request
    assert not server.connections
    pd.testing.assert_frame_equal(first[0], second[0])
    pd.testing.assert_frame_equal(first[1], second[1])
    assert first[2] == second[2]
    (note,) = set(second[3]) - set(first[3])
    assert first[2].split()[-1] in note and str(datetime.now(UTC).date()) in note and "stocks.refresh=true" in note


def test_another_request_or_refresh_asks_yahoo_again(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    source = fetch("AAPL")[2]
    asked = server.asked_for("AAPL")
    fetch("AAPL", start=DAYS[1])
    assert server.asked_for("AAPL") > asked
    server.charts["AAPL"] = flat_chart("AAPL", 60.0)
    assert fetch("AAPL")[2] == source
    anew = fetch("AAPL", refresh=True)[2]
    assert anew != source


def test_the_newest_snapshot_of_a_request_is_reused(server, fetch, tmp_path):
    sources = []
    for price in (50.0, 60.0):
        server.charts["AAPL"] = flat_chart("AAPL", price)
        sources.append(fetch("AAPL", refresh=True)[2])
    for year, source in zip((2020, 2019), sources, strict=True):  # as if the first had come last
        manifest = tmp_path / "snapshots" / f"{source.split()[-1]}.json"
        content = json.loads(manifest.read_text())
        content["requests"][0]["retrieved"] = f"{year}-01-01T00:00:00+00:00"
        manifest.write_text(json.dumps(content))
    assert fetch("AAPL")[2] == sources[0]


def test_equal_content_has_the_same_name_whatever_the_request(server, fetch, tmp_path):
    server.charts["AAPL"] = flat_chart("AAPL")
    first, again = fetch("AAPL")[2], fetch("AAPL", start="2013-12-31")[2]
    assert first == again
    (manifest,) = (tmp_path / "snapshots").glob("*.json")
    content = json.loads(manifest.read_text())
    assert [request["start"] for request in content["requests"]] == [None, "2013-12-31"]
    assert content["requests"][0]["symbols"] == ["AAPL"] and content["requests"][0]["yfinance"]
    assert (content["first"], content["last"], content["rows"]) == (DAYS[0], DAYS[-1], len(DAYS))


def test_a_named_snapshot_is_loaded_for_a_part_of_its_symbols_and_days(server, fetch):
    server.charts |= {symbol: flat_chart(symbol) for symbol in ("AAPL", "MSFT")}
    name = fetch("AAPL", "MSFT")[2].split()[-1]
    server.clear()
    table = fetch("MSFT", snapshot=name, start=DAYS[5])[0]
    assert not server.connections
    assert set(table["symbol"]) == {"MSFT"} and len(table) == len(DAYS) - 5
    with pytest.raises(MarketDataError, match=f"{name} has no NVDA; it has AAPL, MSFT"):
        fetch("NVDA", snapshot=name)


def test_a_named_snapshot_is_refused_for_days_that_it_does_not_cover(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    name = fetch("AAPL", start=DAYS[2], end=DAYS[50])[2].split()[-1]
    for days in ({"start": DAYS[0]}, {"end": DAYS[60]}):
        with pytest.raises(MarketDataError, match=f"{name} covers {DAYS[2]} to {DAYS[50]}"):
            fetch("AAPL", snapshot=name, **days)


@pytest.mark.parametrize("name", ["../../etc/passwd", "0123456789ABCDEF", "0" * 16, "x"])
def test_a_missing_snapshot_is_refused(fetch, name):
    with pytest.raises(MarketDataError, match=r"stocks\.snapshot=") as caught:
        fetch("AAPL", snapshot=name)
    only_line_of(caught)


def test_an_altered_snapshot_is_refused(server, fetch, tmp_path):
    server.charts["AAPL"] = flat_chart("AAPL")
    name = fetch("AAPL")[2].split()[-1]
    path = tmp_path / "snapshots" / f"{name}.parquet"
    whole = path.read_bytes()
    table = pd.read_parquet(path)
    table.loc[7, "close"] += 0.01
    table.to_parquet(path, index=False)
    for settings in ({}, {"snapshot": name}):
        with pytest.raises(MarketDataError, match="altered or damaged") as caught:
            fetch("AAPL", **settings)
        only_line_of(caught)
    for damaged in (whole[: len(whole) // 2], b"", b"no parquet at all"):
        path.write_bytes(damaged)
        with pytest.raises(MarketDataError, match="altered or damaged"):
            fetch("AAPL", snapshot=name)
    path.write_bytes(whole)
    assert len(fetch("AAPL", snapshot=name)[0]) == len(DAYS)


@pytest.mark.slow
def test_a_snapshot_that_would_fill_the_memory_is_not_read(fetch, tmp_path):
    path = tmp_path / "snapshots" / f"{'a' * 16}.parquet"
    path.parent.mkdir()
    pd.DataFrame({name: np.zeros(2_000_000) for name in ("symbol", "date", *snapshots.RAW)}).to_parquet(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(MarketDataError, match="altered or damaged") as caught:
        fetch("AAPL", snapshot="a" * 16)
    assert "claims" in str(caught.value.__cause__)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.assign(date=raw["date"].to_numpy().astype("int64") * 10**9),
        lambda raw: raw.assign(date="2015-01-05"),
        lambda raw: raw.assign(date=np.datetime64("9999-01-01", "ms")),
        lambda raw: raw.assign(close=raw["close"].astype(str)),
        lambda raw: raw.assign(symbol=[{"x": 1}] * len(raw)),
        lambda raw: raw.assign(symbol="A" * 100_000),
        lambda raw: raw.assign(split=True),
    ],
)
def test_a_snapshot_with_the_right_name_and_strange_columns_ends_in_bars_or_in_one_line(
    server, fetch, tmp_path, change
):
    """Its name is a hash of its content, which whoever writes it can compute, too."""
    server.charts["AAPL"] = flat_chart("AAPL")
    name = fetch("AAPL")[2].split()[-1]
    raw = change(pd.read_parquet(tmp_path / "snapshots" / f"{name}.parquet"))
    raw.to_parquet(tmp_path / "snapshots" / "raw.parquet")
    with contextlib.suppress(MarketDataError, AttributeError, TypeError, ValueError):
        name = snapshots._address(raw.astype({"date": "datetime64[s]"}))
    (tmp_path / "snapshots" / "raw.parquet").replace(tmp_path / "snapshots" / f"{name}.parquet")
    config = StocksConfig(source="yahoo", symbols=["AAPL"], snapshots=str(tmp_path / "snapshots"), snapshot=name)
    try:
        assert len(load_bars(config).sessions_T) == len(DAYS)
    except MarketDataError as error:
        assert str(error).isprintable() and len(str(error)) < 600


def test_load_bars_gives_adjusted_bars_that_name_their_snapshot(server, tmp_path):
    server.charts["AAPL"] = flat_chart("AAPL", 40.0, dividends={DAYS[50]: 2.0})
    server.charts["MSFT"] = flat_chart("MSFT", 30.0, days=DAYS[10:])
    config = StocksConfig(source="yahoo", symbols=["MSFT", "AAPL"], snapshots=str(tmp_path))
    with Session(verify=server.ca_file, proxies={"https": server.proxy}) as session:
        bars = load_bars(config, session)
    assert bars.symbols_S == ("MSFT", "AAPL")
    np.testing.assert_allclose(bars.close_TS[:, 1], [38.0] * 50 + [40.0] * 50)
    assert np.isnan(bars.close_TS[:10, 0]).all() and (bars.close_TS[10:, 0] == 30.0).all()
    assert (tmp_path / f"{bars.source.split()[-1]}.parquet").exists()
    assert bars.events["dividend"].tolist() == [2.0]


def test_symbols_in_lower_case_are_those_in_capitals_and_find_the_same_snapshot(server, tmp_path):
    server.charts["AAPL"], server.charts["BRK-B"] = flat_chart("AAPL", 40.0), flat_chart("BRK-B", 30.0)
    asked = [["AAPL", "BRK-B"], ["brk-b", "Aapl"]]
    with Session(verify=server.ca_file, proxies={"https": server.proxy}) as session:
        first, again = (
            load_bars(StocksConfig(source="yahoo", symbols=symbols, snapshots=str(tmp_path)), session)
            for symbols in asked
        )
    assert again.symbols_S == ("BRK-B", "AAPL") and again.snapshot == first.snapshot
    assert any("brk-b is read as BRK-B, Aapl is read as AAPL" in note for note in again.warnings)
    assert any("was reused for the same request" in note for note in again.warnings)


def train_behind(proxy: str, authority: str, folder: Path, *overrides: str) -> tuple[int, str, str]:
    """`python train.py model=tiny stocks=tech10 ...` as a user behind a proxy runs it."""
    trust = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), authority)
    network = {"HTTPS_PROXY": proxy, "NO_PROXY": "", "https_proxy": proxy, "no_proxy": ""}
    return train_here(folder, "model=tiny", "stocks=tech10", "training.max_steps=2", *overrides, **network, **trust)


@pytest.mark.slow
def test_the_command_line_trains_on_what_the_source_answers(server, tmp_path):
    rng = np.random.default_rng(0)
    days = np.datetime_as_string(np.busday_offset("2014-01-06", np.arange(700), roll="forward"))
    for symbol in ("AAPL", "MSFT"):
        closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(days)))).round(4)
        rows = [(str(day), c, c * 1.01, c * 0.99, c, c, 1000) for day, c in zip(days, closes.tolist(), strict=True)]
        server.charts[symbol] = Chart(symbol, rows)
    dates = (f"stocks.start={days[0]}", f"stocks.valid_start={days[450]}", f"stocks.test_start={days[575]}")
    symbols = "stocks.symbols=[AAPL,MSFT]"
    code, out, err = train_behind(server.proxy, server.ca_file, tmp_path, symbols, *dates, "training.window=48")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("run: ")
    assert "Warning" not in err
    assert server.asked_for("AAPL") and server.asked_for("MSFT")
    assert len(list((tmp_path / "outputs" / "snapshots").glob("*.parquet"))) == 1


def test_the_command_line_without_a_network_ends_with_one_line_and_leaves_nothing(server, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, _, err = train_behind(proxy, server.ca_file, tmp_path)
    assert code == 2
    (line,) = err.splitlines()
    assert "could not be reached" in line and "stocks=sample works offline" in line
    assert not list(tmp_path.iterdir())


# A hostile or careless source.


def listing(symbol: str, **meta: object) -> Chart:
    return flat_chart(symbol, meta=meta)


@pytest.mark.parametrize("currency", ["JPY", None, "", ["USD"], "\x1b[31m"])
@pytest.mark.slow
def test_a_symbol_that_comes_in_another_currency_than_before_is_refused(server, fetch, tmp_path, currency):
    server.charts["AAPL"] = listing("AAPL")
    name = fetch("AAPL")[2].split()[-1]
    server.charts["AAPL"] = listing("AAPL", currency=currency)
    with pytest.raises(MarketDataError) as caught:
        fetch("AAPL", refresh=True)
    now = "JPY" if currency == "JPY" else "left out"
    assert only_line_of(caught) == (
        f"AAPL: Yahoo now answers with the currency {now}, but the stored snapshot {name} has USD: another listing; "
        "name another folder as stocks.snapshots to begin anew, or leave it out with stocks.exclude=[AAPL]"
    )
    assert [path.stem for path in (tmp_path / "snapshots").glob("*.parquet")] == [name]
    with pytest.raises(MarketDataError, match="another listing"):
        fetch("AAPL", start=DAYS[1])  # another request of the same symbol


def test_another_folder_begins_anew_in_the_new_currency(server, fetch, tmp_path):
    server.charts["AAPL"] = listing("AAPL")
    fetch("AAPL")
    server.charts["AAPL"] = listing("AAPL", currency="JPY")
    config = StocksConfig(source="yahoo", symbols=["AAPL"], snapshots=str(tmp_path / "anew"))
    with Session(impersonate="chrome", verify=server.ca_file, proxies={"https": server.proxy}) as session:
        assert len(yahoo.read_yahoo(config, session).table) == len(DAYS)


def test_another_time_zone_is_another_listing_and_another_exchange_is_a_note(server, fetch):
    server.charts["AAPL"] = listing("AAPL", exchangeName="NYQ")
    name = fetch("AAPL")[2].split()[-1]
    server.charts["AAPL"] = listing("AAPL", exchangeName="NMS")
    assert f"AAPL: its exchange is NMS, in snapshot {name} it was NYQ" in fetch("AAPL", refresh=True)[3]
    server.charts["AAPL"] = listing("AAPL", exchangeTimezoneName="Asia/Tokyo")
    with pytest.raises(MarketDataError, match=r"AAPL: Yahoo now answers with the timezone Asia/Tokyo, but the stored"):
        fetch("AAPL", refresh=True)


def test_currency_and_exchange_are_kept_beside_the_snapshot(server, fetch, tmp_path):
    server.charts["AAPL"] = listing("AAPL", exchangeName="NMS")
    fetch("AAPL")
    (manifest,) = (tmp_path / "snapshots").glob("*.json")
    known = {"currency": "USD", "exchange": "NMS", "timezone": "America/New_York"}
    assert json.loads(manifest.read_text())["listings"] == {"AAPL": known}


def test_symbols_in_several_currencies_are_refused_and_nothing_is_stored(server, fetch, tmp_path):
    server.charts |= {"AAPL": listing("AAPL"), "MSFT": listing("MSFT"), "7203.T": listing("7203.T", currency="JPY")}
    with pytest.raises(MarketDataError) as caught:
        fetch("AAPL", "7203.T", "MSFT")
    assert only_line_of(caught) == (
        "AAPL, MSFT trade in USD, but 7203.T in JPY: one account cannot add them up; leave some out, e.g. with "
        "stocks.exclude=[7203.T]"
    )
    assert not list(tmp_path.rglob("*.parquet"))
    assert len(fetch("AAPL", "7203.T", "MSFT", exclude=["7203.T"])[0]) == 2 * len(DAYS)


def test_a_stored_snapshot_in_several_currencies_is_refused_too(server, fetch, tmp_path):
    server.charts |= {symbol: listing(symbol) for symbol in ("AAPL", "MSFT")}
    name = fetch("AAPL", "MSFT")[2].split()[-1]
    manifest = tmp_path / "snapshots" / f"{name}.json"
    content = json.loads(manifest.read_text())
    content["listings"]["MSFT"]["currency"] = "GBp"
    manifest.write_text(json.dumps(content))
    for settings in ({}, {"snapshot": name}):
        with pytest.raises(MarketDataError, match="AAPL trade in USD, but MSFT in GBp: one account"):
            fetch("AAPL", "MSFT", **settings)
    assert len(fetch("AAPL", snapshot=name)[0]) == len(DAYS)


def test_a_currency_that_is_not_named_gives_a_note(server, fetch):
    server.charts |= {"AAPL": listing("AAPL"), "MSFT": listing("MSFT", currency=None)}
    assert fetch("AAPL", "MSFT")[3] == ["the currency of MSFT is not known and taken to be USD"]
    assert fetch("MSFT")[3] == ["the currency of MSFT is not known and taken to be one and the same"]


def test_days_that_are_missing_from_an_answer_are_named(server, tmp_path):
    calendar = exchange_calendars.get_calendar("XTKS", start="2012-01-04", end="2016-12-31")
    days = [str(day.date()) for day in calendar.sessions[:900]]
    kept = [day for n, day in enumerate(days) if not 301 <= n < 401 and n % 30 != 29]
    meta = {"exchangeName": "JPX", "currency": "JPY", "exchangeTimezoneName": "Asia/Tokyo"}
    server.charts["7203.T"] = flat_chart("7203.T", days=[f"{day}T00:00:00" for day in kept], meta=meta)
    config = StocksConfig(source="yahoo", symbols=["7203.T"], snapshots=str(tmp_path))
    with Session(impersonate="chrome", verify=server.ca_file, proxies={"https": server.proxy}) as session:
        bars = load_bars(config, session)
    (note,) = [note for note in bars.warnings if "missing" in note]
    assert note.startswith(f"7203.T: 100 sessions missing from {days[301]} to {days[400]}; ")
    scattered = sum(n % 30 == 29 and not 301 <= n < 401 for n in range(899))  # the last day is no gap
    assert f"7203.T: {scattered} of 899 sessions missing, scattered from {days[29]} to {days[869]}" in note
    assert note.endswith("(sessions of XTKS)")


def test_a_redirect_to_an_address_without_encryption_is_not_followed(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    server.always["AAPL"] = Answer(302, headers={"Location": "http://query2.finance.yahoo.com/v8/finance/chart/AAPL"})
    with pytest.raises(
        yahoo.BadResponse, match="AAPL: Yahoo's answer leads to an address without encryption"
    ) as caught:
        fetch("AAPL")
    assert "stocks=sample works offline" in only_line_of(caught)
    assert server.in_clear == []


def test_a_redirect_to_another_https_address_is_followed(server, fetch):
    server.charts["AAPL"] = flat_chart("AAPL")
    there = "https://query1.finance.yahoo.com/v8/finance/chart/AAPL?interval=1d"
    server.before["AAPL"] = [Answer(302, headers={"Location": there})]
    assert len(fetch("AAPL")[0]) == len(DAYS)


@pytest.mark.parametrize("status", [200, 404])
def test_very_many_nested_brackets_are_one_line(server, fetch, status):
    server.always["AAPL"] = Answer(status, b"[" * 200_000)
    with pytest.raises(yahoo.BadResponse, match=r"^AAPL: Yahoo answered with .* \((no JSON|HTTP 404), asked") as caught:
        fetch("AAPL")
    only_line_of(caught)


@pytest.mark.parametrize("moment", [-(2**40), 2**40, 10**30, 1e308, "x", None, [[]]])
@pytest.mark.parametrize("place", ["bar", "dividend", "closing time"])
@pytest.mark.slow
def test_a_moment_that_is_none_ends_in_bars_or_in_one_line(server, fetch, moment, place):
    regular = {"start": 0, "end": moment if place == "closing time" else 1, "gmtoffset": 0, "timezone": "E"}
    chart = flat_chart("AAPL", dividends={DAYS[3]: 0.5}, meta={"currentTradingPeriod": {"regular": regular}})
    answer = json.loads(chart.body())
    (result,) = answer["chart"]["result"]
    if place == "bar":
        result["timestamp"][0] = moment
    elif place == "dividend":
        next(iter(result["events"]["dividends"].values()))["date"] = moment
    server.always["AAPL"] = Answer(body=json.dumps(answer).encode())
    try:
        assert len(fetch("AAPL")[0]) >= len(DAYS) - 1
    except MarketDataError as error:
        assert str(error).isprintable() and len(str(error)) < 300


@pytest.mark.slow
def test_an_answer_that_unpacks_to_gigabytes_is_not_read(server, fetch):
    packed = gzip.compress(bytes(2**26), 9)
    server.always["AAPL"] = Answer(body=packed, headers={"Content-Encoding": "gzip"})
    with pytest.raises(yahoo.BadResponse, match="AAPL: Yahoo's answer is larger than 16,777,216 bytes"):
        fetch("AAPL")


@pytest.mark.parametrize("price", [1e308, 1e-320, float("nan"), -5.0])
@pytest.mark.slow
def test_an_absurd_price_of_yahoo_is_refused_by_symbol_and_day(server, tmp_path, price):
    server.charts["AAPL"] = flat_chart("AAPL")
    day, o, h, lo, _, a, v = server.charts["AAPL"].rows[50]
    server.charts["AAPL"].rows[50] = (day, o, h, lo, price, a, v)
    config = StocksConfig(source="yahoo", symbols=["AAPL"], snapshots=str(tmp_path))
    with (
        Session(impersonate="chrome", verify=server.ca_file, proxies={"https": server.proxy}) as session,
        pytest.raises(MarketDataError, match=f"^AAPL on {day} ") as caught,
    ):
        load_bars(config, session)
    only_line_of(caught)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(requests=[{"symbols": ["AAPL"], "start": [], "end": None, "retrieved": "2020"}]),
        lambda m: m.update(requests=[{"symbols": ["AAPL"], "start": None, "end": None, "retrieved": 5}]),
        lambda m: m.update(requests={"a": 1}),
        lambda m: m.update(listings=[1]),
        lambda m: m.update(listings={"AAPL": "USD"}),
        lambda m: m.update(listings={"AAPL": {"currency": {"x": 1}}}),
    ],
)
@pytest.mark.slow
def test_a_manifest_of_another_shape_is_one_line(server, fetch, tmp_path, change):
    server.charts["AAPL"] = flat_chart("AAPL")
    fetch("AAPL")
    (manifest,) = (tmp_path / "snapshots").glob("*.json")
    content = json.loads(manifest.read_text())
    change(content)
    manifest.write_text(json.dumps(content))
    with pytest.raises(MarketDataError, match="is damaged: delete it, its snapshot stays usable by name") as caught:
        fetch("AAPL")
    only_line_of(caught)


@pytest.mark.parametrize("text", ["[" * 200_000, "{}", "null", "\x00", '{"requests": null}'])
@pytest.mark.slow
def test_a_manifest_that_is_no_manifest_is_one_line_and_a_pipe_is_not_waited_for(server, fetch, tmp_path, text):
    server.charts["AAPL"] = flat_chart("AAPL")
    fetch("AAPL")
    (manifest,) = (tmp_path / "snapshots").glob("*.json")
    manifest.write_text(text)
    with pytest.raises(MarketDataError, match="is damaged"):
        fetch("AAPL")
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(MarketDataError, match="is damaged"):
        fetch("AAPL")


def test_ten_thousand_bad_symbols_give_a_short_line(server, fetch):
    bad = [f"bad{n}" for n in range(10_000)]
    with pytest.raises(MarketDataError) as caught:
        fetch(*bad)
    assert len(only_line_of(caught)) < 200 and "and 9,999 more" in str(caught.value)
    server.charts["AAPL"] = flat_chart("AAPL")
    name = fetch("AAPL")[2].split()[-1]
    with pytest.raises(MarketDataError) as caught:
        fetch(*(f"BAD{n}" for n in range(10_000)), snapshot=name)
    assert len(only_line_of(caught)) < 200 and "and 9,990 more" in str(caught.value)
