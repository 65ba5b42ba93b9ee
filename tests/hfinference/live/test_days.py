"""Paper trading day by day, by a clock that the test sets: each session once, late ones missed, wrong ones halted."""

import dataclasses
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hfinference import LiveTrader, backtest_model
from hfinference.__main__ import main
from hfinference.live.entries import money
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.latch import resume
from hfinference.live.risk import Halt
from hfinference.live.trader import SETTLES
from hftraining.core.bars import ARRAYS, Bars
from hftraining.core.errors import UserError
from tests.bars_of import make_bars, write_csv_files
from tests.compose import compose_config
from tests.hfinference.live.paper import content, replayed
from tests.runs_of import QUICK, placed, run_of_kind, trained
from tests.yahoo_server import Chart, serving

EXCHANGE = Exchange("XNYS")
N = 480


@pytest.fixture(scope="module")
def market() -> Bars:
    """Random walks on the sessions of New York."""
    days = EXCHANGE.sessions(datetime(2015, 1, 5).date(), datetime(2017, 12, 29).date())[:N]
    return dataclasses.replace(make_bars(N, 3, seed=4), sessions_T=np.array(days, "datetime64[D]"))


@pytest.fixture(scope="module")
def trained_run(market, tmp_path_factory) -> Path:
    folder, output = tmp_path_factory.mktemp("bars"), tmp_path_factory.mktemp("run")
    write_csv_files(market.rows(slice(0, N - 60)), folder)
    return Path(run_of_kind(folder, output, "ridge")["folder"])


class Source:
    """A folder of CSV files as the source has them at an instant, and the clock."""

    def __init__(self, bars: Bars, folder: Path, row: int) -> None:
        self.bars, self.folder, self.row = bars, folder, row
        self.instant = self.after_close(row)
        self.until = row
        self.write()

    def after_close(self, row: int) -> datetime:
        return EXCHANGE.close_of(self.bars.sessions_T[row].item()) + SETTLES

    def write(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_csv_files(self.bars.rows(slice(0, self.row + 1)), self.folder)

    def now(self) -> datetime:
        return self.instant

    def sleep(self, until: datetime) -> None:
        """Days pass; the source has the bars of a session once it has closed. At last the user stops it."""
        self.instant = max(self.instant, until)
        while self.row + 1 < len(self.bars.sessions_T) and self.after_close(self.row + 1) <= self.instant:
            self.row += 1
        self.write()
        if self.row > self.until:
            raise KeyboardInterrupt

    def to(self, row: int) -> None:
        self.row, self.instant = row, self.after_close(row)
        self.write()


@pytest.fixture
def source(market, tmp_path) -> Source:
    return Source(market, tmp_path / "bars", N - 40)


def trader(run, source, journal, *words):
    return LiveTrader(run, words=[*words, f"stocks.path={source.folder}"], journal=journal, clock=source)


def marks(folder) -> list[tuple[str, str]]:
    with Journal.read(folder) as journal:
        journal.check()
        return [(mark.day, mark.decision) for mark in journal.sessions()]


@pytest.mark.slow
def test_days_that_are_traded_one_by_one_are_the_replay_of_these_days(trained_run, market, source, tmp_path):
    source.until = N - 36
    with pytest.raises(KeyboardInterrupt):
        trader(trained_run, source, tmp_path / "live").start_paper_trading()
    for row in (N - 35, N - 34):
        source.to(row)
        for _ in range(2):  # the second time there is nothing to do
            trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    days = [str(day) for day in market.sessions_T[N - 40 : N - 33]]
    assert marks(tmp_path / "live") == [(day, "traded") for day in days]
    words = (f"stocks.path={source.folder}",)
    replayed(trained_run, days[0], days[-1], tmp_path / "replay", *words)
    ours, theirs = content(tmp_path / "live"), content(tmp_path / "replay")
    for table in ("orders", "fills", "adjustments"):
        assert [row[:-1] for row in ours[table]] == [row[:-1] for row in theirs[table]]  # all but the time
    assert ours["arrays"] == theirs["arrays"] and len(ours["fills"]) > 5
    backtest = backtest_model(trained_run, days[0], days[-1], words=words, outputs=tmp_path)
    with Journal.read(tmp_path / "live") as journal:
        equity = [money(mark.equity_micro) for mark in journal.sessions()]
    assert equity == pytest.approx(backtest.equity["equity"].tolist(), abs=0.005)


@pytest.mark.slow
def test_a_missed_session_is_settled_and_marked_and_nothing_is_decided_in_it(trained_run, market, source, tmp_path):
    trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    source.to(N - 37)
    trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    decisions = [decision for _, decision in marks(tmp_path / "live")]
    assert decisions == ["traded", "missed", "missed", "traded"]
    with Journal.read(tmp_path / "live") as journal:
        ordered = {fill.day for fill in journal.fills() if fill.reason == "signal"}
        assert ordered == {str(market.sessions_T[N - 39])}
        assert {order.day for order in journal.orders(["planned"])} == {str(market.sessions_T[N - 37])}


@pytest.mark.slow
def test_a_decision_whose_open_has_come_is_missed(trained_run, source, tmp_path):
    source.instant += timedelta(hours=18)  # the next session is open
    trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    assert [decision for _, decision in marks(tmp_path / "live")] == ["missed"]


@pytest.mark.slow
def test_the_bar_of_a_session_that_goes_on_is_not_traded_on(trained_run, market, source, tmp_path):
    source.row += 1
    source.write()
    source.instant = EXCHANGE.close_of(market.sessions_T[N - 39].item()) - timedelta(minutes=10)
    trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    assert marks(tmp_path / "live") == [(str(market.sessions_T[N - 40]), "missed")]


def halted(act, folder) -> str:
    """The name of the halt that it ends with; nothing was sent, and it is latched until it is resumed."""
    with pytest.raises(Halt) as stopped:
        act()
    with pytest.raises(Halt) as again:
        act()
    assert again.value.name in (stopped.value.name, "by_hand") and (folder / "HALT").exists()
    with Journal.read(folder) as journal:
        journal.check()
        assert journal.halted() is not None
    return stopped.value.name


def changed(bars: Bars, symbol: int, factor: float, rows=slice(None), names=("open", "high", "low", "close")) -> Bars:
    arrays = {}
    for name in names:
        arrays[f"{name}_TS"] = getattr(bars, f"{name}_TS").copy()
        arrays[f"{name}_TS"][rows, symbol] *= factor
    return dataclasses.replace(bars, **arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["split", "rewritten_bars"])
def test_bars_that_the_source_has_changed_are_a_named_halt_and_resume_goes_on(trained_run, market, tmp_path, name):
    folder, source = tmp_path / "live", Source(market, tmp_path / "bars", N - 40)
    live = trader(trained_run, source, folder)
    for row in (N - 40, N - 39):
        source.to(row)
        live.start_paper_trading(once=True)
    with Journal.read(folder) as journal:
        held, equity = journal.positions(), journal.last_session().equity_micro
    factor = 0.5 if name == "split" else 1.01
    rows = slice(None) if name == "split" else slice(N - 60, N - 59)
    source.bars = changed(market, 0, factor, rows)
    source.to(N - 38)
    assert halted(lambda: live.start_paper_trading(once=True), folder) == name
    assert len(marks(folder)) == 2
    resume(folder, source.now())
    live.start_paper_trading(once=True)
    assert [decision for _, decision in marks(folder)] == ["traded"] * 3
    with Journal.read(folder) as journal:
        moved = [(entry.symbol, entry.reason) for entry in journal.adjustments() if entry.shares_nano]
        assert moved == ([("S0", "split")] if name == "split" else [])
        assert abs(journal.last_session().equity_micro / equity - 1.0) < 0.1  # no position is halved
    live.start_paper_trading(once=True)
    assert held


@pytest.mark.slow
def test_yahoo_is_asked_for_the_bars_of_each_day_and_what_it_adjusts_for_a_dividend_is_booked(
    market, tmp_path, monkeypatch
):
    with serving(tmp_path) as server:
        for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, server.ca_file)
        for name, value in {"HTTPS_PROXY": server.proxy, "NO_PROXY": ""}.items():
            monkeypatch.setenv(name, value)
            monkeypatch.setenv(name.lower(), value)
        server.charts = charts(market, N - 42)
        stocks = ("stocks.source=yahoo", "stocks.symbols=[S0,S1,S2]", f"stocks.snapshots={tmp_path}/snapshots")
        quick = [word for word in QUICK if not word.startswith(("stocks", "model", "portfolio"))]
        config = compose_config("model=ridge", *quick, "stocks=sample5", *stocks, *placed(tmp_path / "out"))
        run, clock, folder = trained(config)["folder"], Source(market, tmp_path / "unused", N - 40), tmp_path / "live"
        words = ["portfolio=tilt", "portfolio.strength=0.1", "profit_tracker=default"]
        live = LiveTrader(run, journal=folder, clock=clock, words=words)
        for row in (N - 40, N - 39, N - 38):
            clock.to(row)
            paid = 0.02 * market.close_TS[N - 39, 1] if row == N - 38 else 0.0
            server.charts = charts(market, row, paid)
            live.start_paper_trading(once=True)
    assert [decision for _, decision in marks(folder)] == ["traded"] * 3
    with Journal.read(folder) as journal:
        (booked,) = [entry for entry in journal.adjustments() if entry.shares_nano]
        assert (booked.symbol, booked.reason, booked.day) == ("S1", "dividend", str(market.sessions_T[N - 38]))
        held = sum(fill.shares_nano for fill in journal.fills() if fill.symbol == "S1" and fill.day < booked.day)
        assert booked.shares_nano == pytest.approx(held * (1 / 0.98 - 1), rel=1e-3)


def charts(market: Bars, last: int, paid: float = 0.0) -> dict[str, Chart]:
    """What Yahoo says once the bar of a row is there. paid: of S1, on that row, so that earlier closes are adjusted."""
    made = {}
    for s, symbol in enumerate(market.symbols_S):
        factor = 1.0 - paid / market.close_TS[last - 1, s] if symbol == "S1" else 1.0
        rows = []
        for t in range(last + 1):
            prices = [float(array[t, s]) for array in (market.open_TS, market.high_TS, market.low_TS, market.close_TS)]
            adjusted = prices[3] * (factor if t < last else 1.0)
            rows.append((str(market.sessions_T[t]), *prices, adjusted, 10**6))
        day = str(market.sessions_T[last])
        made[symbol] = Chart(symbol, rows, {day: paid} if paid and symbol == "S1" else {})
    return made


def test_a_dividend_that_the_source_names_is_booked(market):
    from hfinference.live.memory import BarMemory, Change

    symbols = market.symbols_S

    class Kept(dict):
        path, facts = "x", {}

        def arrays(self, name):
            return self.get(name, {})

        def keep(self, day, name, array):
            self.setdefault(name, {})[day] = array

        def forget(self, name, before):
            self[name] = {day: array for day, array in self.get(name, {}).items() if day >= before}

    memory = BarMemory(Kept(), symbols)
    memory.keep(market.rows(slice(0, N - 10)), N - 200, False)
    close = market.close_TS[N - 11, 1]
    paid = {"symbol": "S1", "date": pd.Timestamp(market.sessions_T[N - 10]), "split": 0.0, "dividend": 0.02 * close}
    events = pd.DataFrame([paid])
    now = dataclasses.replace(changed(market, 1, 0.98, slice(0, N - 10)), events=events).rows(slice(0, N - 9))
    found = memory.changes(now)
    assert found.factors == {"S1": pytest.approx(0.98)} and found.reasons == {"S1": "dividend"}
    assert memory.changes(market.rows(slice(0, N - 9))) == Change()
    asleep = changed(market, 1, 0.98, slice(0, N - 8)).rows(slice(0, N - 9))
    later = events.assign(date=pd.Timestamp(market.sessions_T[N - 8]))  # a day that is to be caught up with
    assert memory.changes(asleep, later).reasons == {"S1": "dividend"}
    unexplained = memory.changes(dataclasses.replace(now, events=events.iloc[:0]))
    assert unexplained.reasons == {"S1": "rewritten"}


@pytest.mark.slow
def test_a_forecast_of_nothing_is_a_named_halt_in_which_nothing_is_ordered(trained_run, market, source, tmp_path):
    folder = tmp_path / "live"
    live = trader(trained_run, source, folder)
    live.start_paper_trading(once=True)
    live._model.predictor.model.mean.intercept_H[:] = np.nan
    source.to(N - 39)
    assert halted(lambda: live.start_paper_trading(once=True), folder) == "nan_forecast"
    assert marks(folder)[-1] == (str(market.sessions_T[N - 39]), "halted")
    with Journal.read(folder) as journal:
        assert journal.orders(["planned"]) == [] and journal.fills()


@pytest.mark.slow
def test_a_model_of_other_features_is_a_named_halt(trained_run, source, tmp_path):
    folder = tmp_path / "live"
    trader(trained_run, source, folder).start_paper_trading(once=True)
    with Journal.open(folder, {}) as journal:
        journal.set_fact("columns", journal.facts["columns"][1:])
    live = trader(trained_run, source, folder)
    assert halted(lambda: live.start_paper_trading(once=True), folder) == "features"


@pytest.mark.slow
def test_a_second_trader_and_other_settings_are_refused(trained_run, source, tmp_path, capsys):
    folder = tmp_path / "live"
    trader(trained_run, source, folder).start_paper_trading(once=True)
    with pytest.raises(UserError, match=r"profit_tracker.commission was 0.0001 and is now 0.01"):
        trader(trained_run, source, folder, "profit_tracker.commission=0.01").start_paper_trading(once=True)
    with Journal.open(folder, {}), pytest.raises(UserError, match="in use by process"):
        trader(trained_run, source, folder).start_paper_trading(once=True)
    (folder / "journal.sqlite").write_bytes(b"no database" * 1000)
    code = main(["paper", str(trained_run), "--once", "--journal", str(folder), f"stocks.path={source.folder}"])
    assert code == 2 and "halted (journal): " in capsys.readouterr().err
    shutil.rmtree(folder)
    assert main(["paper", str(trained_run), "--once", "--replay", "a", "b"]) == 2
    assert datetime.now(UTC) > source.instant


@pytest.mark.slow
def test_a_stock_that_is_too_young_for_a_forecast_is_held_without_a_halt(trained_run, market, source, tmp_path):
    arrays = {name: getattr(market, name).copy() for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")}
    for array_TS in arrays.values():
        array_TS[: N - 64, 2] = np.nan  # listed five sessions before the account begins
    source.bars, folder = dataclasses.replace(market, **arrays), tmp_path / "replay"
    source.to(N - 1)
    words, days = (f"stocks.path={source.folder}", "stocks.bad_rows=drop"), market.sessions_T[N - 59 : N - 52]
    paper = replayed(trained_run, days[0], days[-1], folder, *words)
    assert len(marks(folder)) == len(days) and paper.difference < 0.005
    with Journal.read(folder) as journal:
        assert not np.isfinite(np.stack([*journal.arrays("quantiles").values()])[:, 2]).any()
        assert "S2" in journal.positions()


@pytest.mark.slow
def test_buying_and_holding_neither_sells_nor_buys_a_stock_that_lacks_a_bar_of_the_day(
    trained_run, market, source, tmp_path
):
    arrays = {name: getattr(market, name).copy() for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")}
    for array_TS in arrays.values():
        array_TS[N - 56 : N - 54, 1] = np.nan
        array_TS[N - 80 : N - 54, 2] = array_TS[N - 53 : N - 51, 2] = np.nan  # comes for a day, then misses two
    source.bars = dataclasses.replace(market, **arrays)
    source.to(N - 1)
    words, days = (f"stocks.path={source.folder}", "stocks.bad_rows=drop"), market.sessions_T[N - 59 : N - 50]
    first, last = str(days[0]), str(days[-1])
    paper = replayed(trained_run, first, last, tmp_path / "replay", *words)
    backtest = backtest_model(trained_run, first, last, words=words, outputs=tmp_path)
    for name in ("equity", "buy_and_hold"):
        assert np.abs(paper.equity[name].to_numpy() - backtest.equity[name].to_numpy()).max() < 0.005


@pytest.mark.slow
def test_a_source_that_has_other_stocks_while_a_trader_runs_is_a_named_halt(trained_run, market, source, tmp_path):
    live, days = trader(trained_run, source, tmp_path / "live"), list[int]()

    def renamed(until: datetime) -> None:
        days.append(source.row)
        if len(days) > 1:
            raise KeyboardInterrupt
        source.bars = dataclasses.replace(market, symbols_S=("S0", "S1", "S3"))
        (source.folder / "S2.csv").unlink()
        source.to(N - 39)

    source.sleep = renamed
    with pytest.raises(Halt, match=r"other stocks than this account began with \(S2, S3\)") as stopped:
        live.start_paper_trading()
    assert stopped.value.name == "rewritten_bars" and (tmp_path / "live" / "HALT").exists()
    assert len(marks(tmp_path / "live")) == 1


@pytest.mark.slow
def test_a_bar_of_a_saturday_is_a_named_halt_and_fills_nothing(trained_run, market, source, tmp_path):
    friday = next(row for row in range(N - 40, N) if market.sessions_T[row].item().isoweekday() == 5)
    source.to(friday)
    trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    true = market.rows(slice(0, friday + 2))
    order = [*range(friday + 1), friday, friday + 1]
    fields = {name: getattr(true, name)[order] for name in ("sessions_T", *ARRAYS)}
    fields["sessions_T"][friday + 1] += 1
    source.to(friday + 1)
    write_csv_files(dataclasses.replace(true, **fields), source.folder)
    with pytest.raises(Halt, match=r"^the source has bars of \S+, a Saturday on which XNYS did not trade") as found:
        trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    assert found.value.name == "no_session" and len(marks(tmp_path / "live")) == 1
    source.write()
    resume(tmp_path / "live", source.now())
    trader(trained_run, source, tmp_path / "live").start_paper_trading(once=True)
    assert [day for day, _ in marks(tmp_path / "live")] == [str(day) for day in true.sessions_T[friday:]]
