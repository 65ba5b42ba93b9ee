"""LiveTrader: a trained run trades on paper, day by day, or over history at full speed by the same steps."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hfinference.backtest import LEAST_SESSIONS, asked_of, config_of
from hfinference.bars_of_run import RunBars, bars_of_run
from hfinference.judged import Counted, counted
from hfinference.live.alpaca import AlpacaDesk
from hfinference.live.brokers import Alpaca, Unreachable
from hfinference.live.clock import Clock, ReplayClock, SystemClock
from hfinference.live.embedded import LAYOUT, EmbeddedDesk
from hfinference.live.entries import micro, money
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.journal_file import REPLAY
from hfinference.live.latch import PAPER
from hfinference.live.risk import Halt, check_bars, check_clock, check_day, limits_and_others
from hfinference.live.session import PaperSessions, check_model
from hfinference.live.status import CALENDAR, HOLD, IN_SAMPLE, NOTES
from hfinference.live.trips import trips_frame
from hfinference.overrides import rules_of
from hfinference.seen_days import SeenDays, notes_of_walk, rows_between
from hfinference.trained import Table, forecast_of, load_model, threads_of
from hftraining.core.errors import UserError
from hftraining.core.values import canonical, flatten, printable
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finished import lost_ledger
from hftraining.market.config import MarketDataError
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.folder import outputs_of
from hftraining.runs.trials import Days
from hftraining.trading.metrics import daily_returns, equity_metrics
from hftraining.trading.simulator import trades_frame

SETTLES = timedelta(minutes=30)  # after a close, before the bars of the day are asked for
RETRY, MOST_RETRY = timedelta(minutes=10), timedelta(hours=2)  # where the source lacks them; each wait is twice as long
SENDS = timedelta(minutes=1)  # between two looks at what could not be sent
LEAST_TIME = timedelta(minutes=15)  # before the next open, until which they are waited for
DIFFERENCE = "backtest_difference"  # a fact of the journal
HALF_A_CENT = 0.005


@dataclass(frozen=True)
class PaperAccount:
    """How a paper account stands. equity: date, equity, buy_and_hold, at the closes. trades: as ProfitReport.trades.

    is_done: a replay that has reached its end. difference: its largest one to the backtest of its days, at any close,
    in currency. notes: sentences.
    """

    folder: Path
    capital: float
    equity: pd.DataFrame
    trades: pd.DataFrame
    is_done: bool
    difference: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def final_equity(self) -> float:
        """At the last close, in currency."""
        return float(self.equity["equity"].iloc[-1]) if len(self.equity) else self.capital

    def as_object(self) -> dict[str, Any]:
        """For --json."""
        days = [str(day.date()) for day in self.equity["date"]]
        metrics = equity_metrics(self.equity["equity"].to_numpy()[:, None], self.capital) if days else {}
        return {
            "folder": str(self.folder),
            "final_equity": self.final_equity,
            "days": {"sessions": len(days), "first": days[0] if days else None, "last": days[-1] if days else None},
            "profit": {name: float(value[0]) for name, value in metrics.items()},
            "trade_count": int((self.trades["exit_reason"] != "open").sum()),
            "done": self.is_done,
            "backtest_difference": self.difference,
            "notes": list(self.notes),
        }


class LiveTrader:
    """Trades the forecasts of a run of any kind on paper, by the portfolio and the rules that it was scored with.

    >>> LiveTrader("outputs/base/NAME/DATE_TIME").start_paper_trading(replay=("2017-01-03", "2017-12-29"))
    >>> LiveTrader("outputs/base/NAME/DATE_TIME").start_paper_trading()  # day by day, until it is stopped

    model_path, stocks, snapshot, words, in_sample: as of backtest_model; risk.max_daily_loss=0.05 and so on, too.
    journal: the folder of the account; by default one in the folder of the run. clock: of now; a replay has its own.
    say: is called with lines for the user. Raises UserError, in one line.
    """

    def __init__(
        self,
        model_path: Path | str,
        *,
        stocks: Sequence[str] = (),
        snapshot: str | None = None,
        words: Sequence[str] = (),
        in_sample: bool = False,
        journal: Path | str | None = None,
        broker: str = "embedded",
        clock: Clock | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._limits, rest = limits_and_others(words)
        self._of_stocks = [word for word in rest if word.startswith(("stocks.", "stocks="))]
        self._model = load_model(model_path)
        config = rules_of(config_of(self._model), [word for word in rest if word not in self._of_stocks])
        if lost := lost_ledger(config.evidence):
            say(f"  note: its ledger, {printable(lost)}, does not exist: your own ledger counts this replay")
            config = dataclasses.replace(config, evidence=dataclasses.replace(config.evidence, ledger=None))
        self._config, self._stocks, self._snapshot = config, tuple(stocks), snapshot
        self._in_sample, self._broker, self._say = in_sample, broker, say
        self._folder = Path(journal) if journal else None
        self._clock = clock or SystemClock()
        asked = [sorted(words), sorted(stocks), snapshot or ""]
        self._other = hashlib.sha256(canonical(asked).encode()).hexdigest()[:8] if any(asked) else ""

    def start_paper_trading(self, replay: tuple[str, str] | None = None, once: bool = False) -> PaperAccount:
        """Trade after each close until a signal comes, or over the days of a replay; an account goes on where it was.

        replay: the first and last day, ISO. It may be killed at any moment and started again, and when it has ended it
        gives the same again; it counts in the ledger as the backtest of these days does. once: only what is due now.
        Raises Halt where something is wrong: nothing is sent any more until `resume`.
        """
        with threads_of(self._model):
            if replay is not None:
                return self._replay(*replay)
            return self._live(once)

    # --- a replay -------------------------------------------------------------------------------------------------

    def _replay(self, start: str, end: str) -> PaperAccount:
        if self._broker != "embedded":
            raise UserError(f"a replay trades with the embedded desk, and {self._broker} only fills at today's prices")
        bars, config = self._bars()
        days_T = bars.universe.sessions_T
        rows, seen = rows_between(days_T, start, end, LEAST_SESSIONS), SeenDays.of(self._model)
        in_sample = seen.check(days_T, rows, self._in_sample)
        notes = *bars.notes, *notes_of_walk(self._model), *seen.notes(days_T, rows)
        first, last = str(days_T[rows.start]), str(days_T[rows.stop - 1])
        folder = self._folder or self._own_folder(f"replay_{first}_{last}")
        clock, asked = ReplayClock(), asked_of(self._model, config, bars.traded.rows(rows), bars.traded, in_sample)
        place = outputs_of(self._model.folder, self._model.manifest) or Path("outputs")
        facts = self._facts(bars, config) | {REPLAY: [first, last]}
        with Journal.open(folder, facts, now=lambda: _text(clock.now())) as journal, _latched(journal):
            check_model(journal, self._model)
            notes = _kept(journal, notes, in_sample)
            if _is_at(journal, last) and DIFFERENCE in journal.facts:
                return self._account(journal, notes, True)
            with counted(asked, folder, place) as row:
                sessions = self._sessions(journal, config)
                self._run_through(sessions, journal, bars, rows, clock)
                self._count(row, journal, bars, rows, asked.test_first)
            return self._account(journal, notes, True)

    def _count(self, row: Counted, journal: Journal, bars: RunBars, rows: slice, test_first: str | None) -> None:
        """Finish the row of the ledger, and keep how far the account lies from the backtest of these days.

        The forecasts of one pass over all days differ from those made day by day in their last bits, and so do the
        returns: where no cent comes of it, the ledger has those of the backtest, as which it counts.
        """
        tracker = ProfitTracker(self._config.profit_tracker, self._config.portfolio)
        own = bars.traded.rows(rows)
        forecast = forecast_of(self._model.predictor, Table(bars.universe), bars.symbols, rows)
        simulation, held = tracker.trade(own, tracker.weights(own, forecast)).simulation, tracker.buy_and_hold(own)
        equity_T = np.array([money(mark.equity_micro) for mark in journal.sessions()])
        difference = float(np.abs(equity_T - simulation.equity_T).max())
        if difference < HALF_A_CENT:
            equity_T = simulation.equity_T
        dates = [str(day) for day in own.sessions_T[1:]]
        days = Days(dates, daily_returns(equity_T).tolist(), daily_returns(held.simulation.equity_T).tolist())
        capital = self._config.profit_tracker.initial_capital
        row.finish(days, test_first, float(equity_metrics(equity_T[:, None], capital)["sharpe_ratio"][0]))
        journal.set_fact(DIFFERENCE, difference)  # last: who is killed before it counts again, in the same row

    def _run_through(
        self, sessions: PaperSessions, journal: Journal, bars: RunBars, rows: slice, clock: ReplayClock
    ) -> None:
        days_T, fetched = bars.universe.sessions_T, [bars]
        for t in range(rows.start, rows.stop):
            if sessions.last and str(days_T[t]) <= sessions.last.day:
                continue
            _refuse_latched(journal)
            clock.instant = datetime.combine(days_T[t].item(), time(22), UTC)
            sessions.step(_until(bars, t), clock.now(), fetched=fetched.pop() if fetched else None)
            sessions.send(clock.now())

    # --- day by day -----------------------------------------------------------------------------------------------

    def _live(self, once: bool) -> PaperAccount:
        bars, config = self._bars(newest=True)
        exchange = Exchange.of(bars.universe, config.stocks.calendar)
        exchange.check_pauses(self._clock.now(), SETTLES + LEAST_TIME)
        folder = self._folder or self._own_folder("live" if self._broker == "embedded" else self._broker, live=True)
        facts, desk = self._facts(bars, config) | {CALENDAR: exchange.name}, self._desk(bars, config, exchange)
        begin, now = desk.opening if desk else dict, lambda: _text(self._clock.now())
        with Journal.open(folder, facts, now=now, begin=begin) as journal, _latched(journal):
            check_model(journal, self._model)
            notes = _kept(journal, [*bars.notes, *notes_of_walk(self._model)])
            _refuse_latched(journal)
            sessions: PaperSessions | None = None
            while True:
                try:
                    sessions = sessions or self._sessions(journal, config, desk)
                    self._catch_up(sessions, journal, bars, exchange)
                    if once:
                        return self._account(journal, notes, False)
                    due = exchange.next_close(self._clock.now()) + SETTLES
                    self._say(f"waiting until {_text(due)}")
                    self._wait(journal, due, sessions)
                except Unreachable as error:  # nothing is known to be wrong
                    if once:
                        raise
                    self._say(str(error))
                    sessions = None
                    self._wait(journal, self._clock.now() + RETRY)
                bars = self._bars_when_there(journal, exchange)

    def _catch_up(self, sessions: PaperSessions, journal: Journal, bars: RunBars, exchange: Exchange) -> None:
        """Every session that is not marked yet; only the last one may be decided, while its fill is still to come."""
        now, last = self._clock.now(), sessions.last
        entry = datetime.fromisoformat(last.at) if last and last.at else None
        check_clock(now, self._limits, broker=sessions.broker_now(), last_entry=entry)
        bars = _finished(bars, exchange, now)
        check_bars(bars.traded, [], self._limits, now=now, exchange=exchange)
        days_T = bars.universe.sessions_T
        begin = int(np.searchsorted(days_T, np.datetime64(last.day), side="right")) if last else len(days_T) - 1
        for t in range(begin, len(days_T)):
            _refuse_latched(journal)
            day = days_T[t].item()
            check_day(day, exchange)
            fills = exchange.open_of(exchange.next_session(day))
            late = "" if self._clock.now() < fills else f"the session opened at {_text(fills)}"
            sessions.step(_until(bars, t), self._clock.now(), late, bars if t == begin else None)
            mark = sessions.last
            assert mark is not None
            self._say(f"{mark.day}: equity {money(mark.equity_micro):,.2f}, {mark.decision}")
        _refuse_latched(journal)
        sessions.send(self._clock.now())

    def _wait(self, journal: Journal, until: datetime, sessions: PaperSessions | None = None) -> None:
        """Until an instant; meanwhile send what these sessions have planned, when it can be sent."""
        again = self._clock.now()
        while (now := self._clock.now()) < until:
            due = sessions.next_send(now) if sessions else None
            if sessions and due and due <= now and again <= now:
                sessions.send(now)
                again, due = now + SENDS, sessions.next_send(now)
            self._clock.sleep(min(until, max(due, again)) if due else until)
            _refuse_latched(journal)

    def _bars_when_there(self, journal: Journal, exchange: Exchange) -> RunBars:
        """The bars of the last closed session, waited for while there is time to trade on them."""
        retry = RETRY
        while True:
            now = self._clock.now()
            last_time = exchange.next_open(now) - LEAST_TIME
            try:
                bars = self._bars(newest=True)[0]
                behind = exchange.behind(bars.universe.sessions_T[-1].item(), now)
                if behind <= self._limits.max_stale_sessions or now >= last_time:
                    return bars
                self._say(f"the source has no bars of {exchange.last_closed(now)} yet")
            except MarketDataError as error:  # of a source on the net, which may answer later
                if now >= last_time:
                    raise
                self._say(str(error))
            self._wait(journal, min(now + retry, last_time))
            retry = min(2 * retry, MOST_RETRY)

    # --- both -----------------------------------------------------------------------------------------------------

    def _bars(self, newest: bool = False) -> tuple[RunBars, ExperimentConfig]:
        bars = bars_of_run(self._model, self._stocks, self._snapshot, self._of_stocks, newest)
        if self._stocks or self._of_stocks or self._model.config is None:
            return bars, dataclasses.replace(self._config, stocks=bars.config)
        return bars, self._config

    def _own_folder(self, name: str, live: bool = False) -> Path:
        """RUN/paper/NAME, where RUN is the folder that was given: that of a run, or of a model, whose rules differ."""
        return self._model.folder / PAPER / (f"{name}_{self._other}" if self._other and not live else name)

    def _facts(self, bars: RunBars, config: ExperimentConfig) -> dict[str, Any]:
        """What may not change while an account lives."""
        rules = {
            f"{group}.{name}": value
            for group in ("profit_tracker", "portfolio")
            for name, value in flatten(dataclasses.asdict(getattr(config, group))).items()
            if (group, name) not in {("profit_tracker", "every"), ("profit_tracker", "report_every")}
        }
        own = {"capital_micro": micro(config.profit_tracker.initial_capital)}  # a broker's account has its own
        return {
            **(own if self._broker == "embedded" else {}),
            "desk": self._broker,
            "run": str(self._model.manifest.get("id") or ""),
            "engine": LAYOUT,
            "symbols": list(bars.symbols),
            "universe": list(bars.universe.symbols_S),
            **rules,
        }

    def _desk(self, bars: RunBars, config: ExperimentConfig, exchange: Exchange) -> AlpacaDesk | None:
        """The desk of a broker; None for the embedded one. Raises ConfigError for what the broker cannot do."""
        if self._broker == "embedded":
            return None
        return AlpacaDesk(Alpaca(), exchange, bars.symbols, config.profit_tracker)

    def _sessions(self, journal: Journal, config: ExperimentConfig, desk: AlpacaDesk | None = None) -> PaperSessions:
        if desk:  # before anything is taken for late, and ended, by a clock that is wrong
            check_clock(self._clock.now(), self._limits, broker=desk.now())
        rules = dataclasses.replace(config.profit_tracker, initial_capital=money(journal.capital))
        config = dataclasses.replace(config, profit_tracker=rules)
        place = desk or EmbeddedDesk(journal.facts["symbols"], rules)
        return PaperSessions(self._model, config, self._limits, place, journal)

    def _account(self, journal: Journal, notes: Sequence[str], is_done: bool) -> PaperAccount:
        marks = journal.sessions()
        days_T = np.array([mark.day for mark in marks], "datetime64[D]")
        hold = journal.arrays(HOLD)
        if any(hold.get(mark.day, np.empty(0)).size != 1 for mark in marks):
            raise Halt("journal", f"{journal.path} lacks what holding is worth: begin another (--journal FOLDER)")
        equity = pd.DataFrame(
            {
                "date": days_T.astype("datetime64[s]"),
                "equity": [money(mark.equity_micro) for mark in marks],
                "buy_and_hold": [float(hold[mark.day].item()) for mark in marks],
            }
        )
        if self._broker == "embedded":
            desk = EmbeddedDesk(journal.facts["symbols"], self._config.profit_tracker)
            desk.reconcile(journal)
            trades = trades_frame(desk.engine.trades, days_T, desk.symbols_S)
        else:
            trades = trips_frame(journal)
        difference = journal.facts.get(DIFFERENCE) if is_done else None
        if not isinstance(difference, float | None):
            raise Halt("journal", f"{journal.path} is damaged ({DIFFERENCE}): begin another (--journal FOLDER)")
        return PaperAccount(journal.folder, money(journal.capital), equity, trades, is_done, difference, tuple(notes))


@contextmanager
def _latched(journal: Journal) -> Iterator[None]:
    """A Halt that leaves this is latched in the journal and by the file HALT."""
    try:
        yield
    except Halt as halt:
        lasting = journal.halted()
        if lasting is None or not lasting.id or (lasting.name, lasting.reason) != (halt.name, str(halt)):
            last = journal.last_session()
            journal.halt(halt.name, str(halt), last.day if last else "")
        raise


def _kept(journal: Journal, notes: Sequence[str], in_sample: str = "") -> tuple[str, ...]:
    """All of them; the journal keeps them for its status."""
    for name, value in ((NOTES, list(notes)), (IN_SAMPLE, in_sample)):
        if journal.facts.get(name, type(value)()) != value:
            journal.set_fact(name, value)
    return (*notes, in_sample) if in_sample else tuple(notes)


def _refuse_latched(journal: Journal) -> None:
    """Raise the Halt that lasts."""
    if lasting := journal.halted():
        raise Halt(lasting.name, lasting.reason)


def _is_at(journal: Journal, day: str) -> bool:
    last = journal.last_session()
    return last is not None and last.day >= day


def _until(bars: RunBars, t: int) -> RunBars:
    """The bars to a row, as if there were no later ones, events included."""
    cut, events = bars.universe.rows(slice(0, t + 1)), bars.universe.events
    if len(events):
        days = events["date"].to_numpy().astype("datetime64[D]")
        cut = dataclasses.replace(cut, events=events[days <= cut.sessions_T[-1]])
    return dataclasses.replace(bars, universe=cut)


def _finished(bars: RunBars, exchange: Exchange, now: datetime) -> RunBars:
    """Without the bar of a session that goes on: sources give it as it is so far."""
    days_T = bars.universe.sessions_T
    goes_on = exchange.is_open(now) and days_T[-1].item() == exchange.next_close(now).date()
    return _until(bars, len(days_T) - 2) if goes_on and len(days_T) > 1 else bars


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds")
