"""One session of a paper account, the same for live trading and a replay: settle, forecast, gate, orders.

Legend: T sessions, S symbols.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from hfinference.bars_of_run import RunBars
from hfinference.forecast import FEATURE_ROWS, rows_needed
from hfinference.live.desk import Desk
from hfinference.live.embedded import STATE
from hfinference.live.entries import Mark, Order, micro, money, shares
from hfinference.live.journal import Journal
from hfinference.live.latch import end_flatten, flatten_asked
from hfinference.live.memory import NAMED, BarMemory, Change
from hfinference.live.risk import (
    Halt,
    RiskLimits,
    check_account,
    check_bars,
    check_features,
    check_forecast,
    check_orders,
)
from hfinference.live.status import HOLD
from hfinference.trained import Table, TrainedModel, forecast_of
from hftraining.core.bars import ARRAYS, Bars
from hftraining.core.errors import UserError, listed
from hftraining.core.forecast import Forecast
from hftraining.core.untrusted import SMALL, digest
from hftraining.experiment.config import ExperimentConfig
from hftraining.model.folder import CONFIG
from hftraining.profit_tracker import ProfitTracker

COLUMNS, MODEL = "columns", "model"  # facts of the journal
QUANTILES, HEAD, WEIGHTS = "quantiles", "head", "weights"  # arrays of the journal, one a session
RECENT = 30  # sessions that the gate looks at
OF_LOSS = ("daily_loss", "drawdown")


class PaperSessions:
    """Steps an account through sessions. After a Halt, or any other exception, make another one from the journal."""

    def __init__(
        self, model: TrainedModel, config: ExperimentConfig, limits: RiskLimits, desk: Desk, journal: Journal
    ) -> None:
        self._model, self._limits, self._desk, self._journal = model, limits, desk, journal
        self._rules = config.profit_tracker
        self._tracker = ProfitTracker(config.profit_tracker, config.portfolio)
        desk.reconcile(journal)
        self._marks = journal.sessions()
        self._closes = dict(self._marks[-1].closes) if self._marks else {}
        self._memory = BarMemory(journal, journal.facts["universe"])
        kept = journal.arrays(QUANTILES), journal.arrays(HEAD)
        self._quantiles, self._heads = ([*arrays.values()] for arrays in kept)
        days = [mark.day for mark in self._marks]
        if any([*arrays] != days or len({array.shape for array in arrays.values()}) > 1 for arrays in kept):
            raise Halt("journal", f"{journal.path} lacks a forecast: begin another (--journal FOLDER)")

    @property
    def last(self) -> Mark | None:
        """The last session, None before the first."""
        return self._marks[-1] if self._marks else None

    def step(self, bars: RunBars, now: datetime, missed: str = "", fetched: RunBars | None = None) -> None:
        """Settle, mark and decide at the close of the last of these bars; one transaction of the journal.

        missed: why nothing may be decided. fetched: all that came where bars were fetched anew, so that earlier ones
        may have changed; its events say why, since what is paid on a later day has changed the bars before it already.
        Raises Halt. One before the account is settled leaves nothing; another one leaves the session without orders.
        """
        universe, own = bars.universe, bars.traded
        held = self._desk.account()[2]
        self._check_stocks(bars)
        check_bars(own.rows(slice(-RECENT, None)), held, self._limits, now=now, exchange=None)
        journal, day = self._journal, str(own.sessions_T[-1])
        change = self._change(universe, fetched.universe) if fetched else Change()
        first = self._first_row(own)
        today = own.rows(slice(first, None))
        halt: Halt | None = None
        with journal.transaction():
            self._desk.rescale(journal, day, change.factors, change.reasons)
            self._closes = {symbol: close * change.factors.get(symbol, 1.0) for symbol, close in self._closes.items()}
            self._desk.settle(journal, today)
            row = self._forecast(bars)
            self._quantiles.append(row.quantiles_TSHQ[0])
            self._heads.append(row.head_TS[0])
            if (self._quantiles[0].shape, self._heads[0].shape) != (self._quantiles[-1].shape, self._heads[-1].shape):
                raise Halt("journal", f"{journal.path} holds forecasts of another model: begin another account")
            close = zip(own.symbols_S, own.close_TS[-1], strict=True)
            self._closes |= {symbol: float(price) for symbol, price in close if np.isfinite(price)}
            weights_S = np.full(len(own.symbols_S), np.nan)
            asked, orders = flatten_asked(journal.folder), list[Order]()
            try:
                check_account(self._equity(), self._limits)
                if not missed and asked is None:
                    check_forecast(row, today.rows(slice(-1, None)), self._forecast_before(held))
                    weights_S = self._weights(today, row)
                elif not missed:
                    self._desk.close_only()
                    weights_S = np.zeros(len(own.symbols_S))
                orders = self._desk.decide(journal, today, weights_S)
                self._gate(orders)
            except Halt as found:
                halt, orders = found, []
                self._desk.withdraw()
            kept = {WEIGHTS: weights_S, HOLD: np.array([self._held(today)])}
            self._mark(day, kept, self._decision(halt, missed, asked))
            self._memory.keep(universe, self._first_needed(universe), bool(change.factors or change.rewritten))
            for order in orders:
                journal.plan(order.day, [order])
            if halt is not None:
                journal.halt(halt.name, str(halt), day)
        if halt is not None:
            raise halt
        if asked is not None and not orders and not self._desk.account()[2]:
            end_flatten(journal)

    def send(self, now: datetime) -> None:
        """Send what is planned and may be sent now."""
        self._desk.send(self._journal, now)

    def next_send(self, now: datetime) -> datetime | None:
        """When to send next; None: not before the next session."""
        return self._desk.next_send(self._journal, now)

    def broker_now(self) -> datetime | None:
        """The clock of the broker; None where it is ours."""
        return self._desk.now()

    def _held(self, today: Bars) -> float:
        """What buying and holding is worth at the last close, in currency.

        Nobody knows yet whether the last bar of a stock that has none today was its last of all: so one more session,
        on which all of them have a bar at their last close, follows.
        """
        gone_S = np.array([symbol in self._closes for symbol in today.symbols_S]) & ~today.present_TS[-1]
        if not gone_S.any():
            return float(self._tracker.buy_and_hold(today).simulation.equity_T[-1])
        last_S = np.array([self._closes.get(symbol, np.nan) for symbol in today.symbols_S])
        rows = {name: last_S if name != "volume_TS" else np.where(np.isfinite(last_S), 0.0, np.nan) for name in ARRAYS}
        arrays: dict[str, Any] = {name: np.vstack([getattr(today, name), row]) for name, row in rows.items()}
        arrays["sessions_T"] = np.append(today.sessions_T, today.sessions_T[-1:] + 1)
        longer = dataclasses.replace(today, **arrays)
        return float(self._tracker.buy_and_hold(longer).simulation.equity_T[-2])

    def _first_row(self, own: Bars) -> int:
        """The row of the account's first session."""
        if not self._marks:
            return len(own.sessions_T) - 1
        return int(np.searchsorted(own.sessions_T, np.datetime64(self._marks[0].day)))

    def _first_needed(self, universe: Bars) -> int:
        """The first row that a forecast at the last one depends on."""
        today = len(universe.sessions_T) - 1
        return rows_needed(universe.present_TS, today, today, self._model.receptive_field + FEATURE_ROWS)

    def _check_stocks(self, bars: RunBars) -> None:
        """Raise Halt where the source has other stocks than those that the account began with."""
        facts = self._journal.facts
        for known, found in ((facts["universe"], bars.universe.symbols_S), (facts["symbols"], bars.symbols)):
            if list(found) != known:
                names = listed(sorted({*known} ^ {*found}) or found, NAMED)
                raise Halt(
                    "rewritten_bars",
                    f"the source has other stocks than this account began with ({names}): bring them back, or begin "
                    "another account (--journal FOLDER)",
                )

    def _forecast_before(self, held: Mapping[str, float]) -> list[str]:
        """What is held and had a forecast before: a portfolio may hold a stock that is too young for one."""
        symbols = self._journal.facts["symbols"]
        known_S = np.zeros(len(symbols), np.bool_)
        for quantiles_SHQ, head_S in zip(self._quantiles[:-1], self._heads[:-1], strict=True):
            known_S |= np.isfinite(quantiles_SHQ).any(axis=(1, 2)) | np.isfinite(head_S)
        return [symbol for symbol, known in zip(symbols, known_S, strict=True) if known and symbol in held]

    def _change(self, universe: Bars, fetched: Bars) -> Change:
        change = self._memory.changes(universe, fetched.events)
        if self.last:
            self._memory.check(change, self.last.day)
        return change

    def _forecast(self, bars: RunBars) -> Forecast:
        """The forecast at the last row alone, from no more rows than it depends on."""
        today = len(bars.universe.sessions_T) - 1
        begin = self._first_needed(bars.universe)
        table = Table(bars.universe.rows(slice(begin, today + 1)))
        return forecast_of(self._model.predictor, table, bars.symbols, slice(today - begin, today - begin + 1))

    def _weights(self, today: Bars, row: Forecast) -> np.ndarray:
        """The target weights of the last row: of the book that the portfolio makes of all forecasts so far."""
        kept = np.stack(self._quantiles), np.stack(self._heads)
        whole: Forecast = dataclasses.replace(row, quantiles_TSHQ=kept[0], head_TS=kept[1])
        weights_TS: np.ndarray = self._tracker.weights(today, whole)
        return weights_TS[-1]

    def _equity(self) -> list[float]:
        """At the closes, in currency, the capital first; after a loss that was looked at, from that session on."""
        journal, marks = self._journal, self._marks
        looked_at = [row.day for row in journal.halts() if row.lifted_at and row.name in OF_LOSS]
        known = [money(mark.equity_micro) for mark in marks if not looked_at or mark.day >= max(looked_at)]
        return [*([] if looked_at else [money(journal.capital)]), *known, self._desk.account()[1]]

    def _gate(self, orders: list[Order]) -> None:
        _, equity, held = self._desk.account()
        wanted = Counter[str]()
        for order in orders:
            wanted[order.symbol] += order.signed_nano
        asked = {symbol: shares(count) for symbol, count in wanted.items()}
        if asked:
            check_orders(asked, held, self._closes, equity, self._limits, self._rules)

    def _decision(self, halt: Halt | None, missed: str, asked: str | None) -> tuple[str, str]:
        if halt is not None:
            return "halted", f"{halt.name}: {halt}"
        if missed:
            return "missed", missed
        return ("traded", "") if asked is None else ("flat", asked)

    def _mark(self, day: str, arrays: dict[str, np.ndarray], decision: tuple[str, str]) -> None:
        journal, (_, equity, _) = self._journal, self._desk.account()
        mark = Mark(day, journal.cash(), micro(equity), dict(self._closes), *decision)
        kept = {QUANTILES: self._quantiles[-1], HEAD: self._heads[-1]}
        journal.mark(mark, arrays | kept | self._desk.arrays())
        journal.forget(STATE, day)
        self._marks.append(dataclasses.replace(mark, closes={}))


def check_model(journal: Journal, model: TrainedModel) -> None:
    """Keep in a new journal what the model is, or compare it: one without its run has no id, and any may be changed.

    Raises UserError for another model, and Halt for other features.
    """
    own = digest((model.folder / "model" if model.manifest else model.folder) / CONFIG, SMALL)
    if MODEL not in journal.facts:
        journal.set_fact(MODEL, own)  # its config.json names the checksums of all its files
    if journal.facts[MODEL] != own:
        raise UserError(
            f"{journal.path} is of another account: {model.folder} has another model than it began with: bring the "
            "model back, or begin another (--journal FOLDER)"
        )
    if COLUMNS not in journal.facts:
        journal.set_fact(COLUMNS, list(model.columns))
    known = journal.facts[COLUMNS]
    if not isinstance(known, list) or not all(isinstance(name, str) for name in known):
        raise Halt("journal", f"{journal.path} is damaged ({COLUMNS}): begin another (--journal FOLDER)")
    check_features(known, model.columns)
