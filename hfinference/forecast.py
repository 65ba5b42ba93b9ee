"""The next session of a trained run: forecasts, scores, target weights and orders, decided at a close.

Legend: T sessions, S symbols.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hfinference.backtest import config_of, refuse_nothing
from hfinference.bars_of_run import RunBars, bars_of_run
from hfinference.kept_forecasts import kept_forecast
from hfinference.overrides import rules_of
from hfinference.seen_days import SeenDays, row_of
from hfinference.trained import Table, TrainedModel, forecast_of, frame_of, load_model, threads_of
from hftraining.core.bars import Bars
from hftraining.core.errors import UserError, listed
from hftraining.core.forecast import Forecast
from hftraining.core.untrusted import read_json_object, shown
from hftraining.experiment.config import ExperimentConfig
from hftraining.market.sessions import next_session
from hftraining.portfolio.config import PortfolioConfig, kind_of
from hftraining.portfolio.score import across_stocks, median_and_uncertainty, ratio_of
from hftraining.profit_tracker import ProfitTracker
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import Account
from hftraining.trading.towards import gain_of

FEATURE_ROWS = 252  # own bars of a symbol that its features reach back
CENT = 1e-6  # of the equity, a cent of 10,000: what a weight may differ by where old sessions are left out
LARGE_SCORE = 5.0  # deviations that hardly any score is away from the mean of its day
FORGOTTEN = 1e-7  # the share of old sessions where a small difference of scores may move a whole position
LONGEST = 50_000  # sessions: more than any bars have
REMEMBERING = ("top", "timing", "hrp", "mean_variance", "edge")  # kinds whose weights know more than the last scores
MOST_SHARES = 1e15


@dataclass(frozen=True)
class Holding:
    """What an account holds. cash: in currency. positions: symbol -> signed shares."""

    cash: float
    positions: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Holding":
        """From a file such as {"cash": 2500.0, "positions": {"AAPL": 10, "MSFT": -3}}. Raises UserError."""
        values = read_json_object(path)
        if unknown := sorted(values.keys() - {"cash", "positions"}):
            raise UserError(f"{path}: {shown(unknown[0])} is neither cash nor positions")
        cash, positions = values.get("cash"), values.get("positions", {})
        if cash is None or not _is_amount(cash):
            raise UserError(f"{path}: cash is {shown(cash)}, not an amount of money")
        if not isinstance(positions, dict):
            raise UserError(f"{path}: positions is no object of symbols and shares")
        for symbol, shares in positions.items():
            if not _is_amount(shares):
                raise UserError(f"{path}: {shown(symbol)} has {shown(shares)} shares, which is no number of shares")
        return cls(float(cash), {symbol: float(shares) for symbol, shares in positions.items() if shares})


@dataclass(frozen=True)
class NextSession:
    """What a run decides at a close.

    day: of the close. session: on which the orders are filled, None where no calendar knows it. table: a row a symbol,
    the largest weight first: close, the quantiles (see trained.frame_of), score, weight, held (weight now), order
    (shares, signed), side, value and cost (currency, estimated at the close). equity: of the account at the close.
    since: the first session of the portfolio's book. relative: what the quantiles are relative to. notes: sentences.
    """

    run: Path
    day: str
    session: str | None
    table: pd.DataFrame
    equity: float
    since: str
    relative: str
    notes: tuple[str, ...]

    def as_object(self) -> dict[str, Any]:
        """For --json."""
        rows = self.table.reset_index().to_dict("records")
        return {
            "run": str(self.run),
            "day": self.day,
            "session": self.session,
            "equity": self.equity,
            "since": self.since,
            "relative": self.relative,
            "symbols": rows,
            "notes": list(self.notes),
        }


def forecast_next(
    model_path: Path | str,
    date: str | None = None,
    *,
    stocks: Sequence[str] = (),
    snapshot: str | None = None,
    words: Sequence[str] = (),
    start: str | None = None,
    account: Holding | None = None,
    in_sample: bool = False,
    keep: bool = True,
) -> NextSession:
    """What a run would hold after a close, and the orders that get there.

    date: of the close; by default the last session of the bars. stocks, snapshot, words: as of backtest_model. start:
    where the book of the portfolio begins, with nothing: by default the run's first test day, or the day before which
    nothing moves a weight of today by 1e-6, see memory_of. With the same start the weights are those of a backtest at
    this close. account: what is held; by default initial_capital in cash. keep: forecasts of earlier sessions are taken
    from the user's cache, and kept there. Nothing else is written and nothing counts as a trial. Raises UserError, in
    one line.
    """
    model = load_model(model_path)
    of_stocks = [word for word in words if word.startswith(("stocks.", "stocks="))]
    config = rules_of(config_of(model), [word for word in words if word not in of_stocks])
    bars = bars_of_run(model, stocks, snapshot, of_stocks)
    sessions_T = bars.universe.sessions_T
    today, seen = row_of(sessions_T, date), SeenDays.of(model)
    sentence = seen.check(sessions_T, slice(today, today + 1), in_sample)
    first = _first_row(bars, today, seen, start, config.portfolio)
    with threads_of(model):
        forecast, own = _forecast(model, bars, first, today, keep)
    tracker = ProfitTracker(config.profit_tracker, config.portfolio)
    weights_TS = tracker.weights(own, forecast)
    holding = account or Holding(config.profit_tracker.initial_capital)
    table, equity = _table(forecast, own, weights_TS[-1], holding, config)
    lag = config.profit_tracker.lag
    session = _filled_on(sessions_T, today, lag, config.stocks.calendar)
    notes = tuple(text for text in (sentence, _of_lag(lag), *bars.notes, *bars.universe.warnings) if text)
    day, since = str(sessions_T[today]), str(own.sessions_T[0])
    return NextSession(model.folder, day, session, table, equity, since, model.relative, notes)


def _filled_on(sessions_T: np.ndarray, today: int, lag: int, calendar: str | None) -> str | None:
    """The session, ISO, at whose open a decision of a row is filled; None where no calendar knows it."""
    known_T = sessions_T[: today + 1 + lag]
    while len(known_T) < today + 1 + lag:
        later = next_session(known_T, calendar)
        if later is None:
            return None
        known_T = np.append(known_T, np.datetime64(later))
    return str(known_T[-1])


def _of_lag(lag: int) -> str:
    """What an account has to know where orders wait for longer than a night."""
    if lag == 1:
        return ""
    return (
        f"profit_tracker.lag={lag}: orders lead from what the account file holds to the target; take off what earlier "
        "decisions have ordered and is not filled yet"
    )


def memory_of(portfolio: PortfolioConfig, present_TS: np.ndarray) -> int | None:
    """The sessions before the last whose forecasts matter to its weights; None: all there are.

    present_TS: where a traded symbol has a bar, until the last session. The smoothed score is a mean of past signals
    whose weights fall by 2^(-1 / smoothing) a session, and a book that trades towards its target is one of past
    targets, by 1 - trade_rate. Of the two one after the other, `left` is the share of all that is older. Of what a
    symbol may have or move by at a LARGE_SCORE, the less the more stocks there are, this may be a CENT: no weight, and
    so no order, differs by more. A place among the best turns on any difference of scores: there it is FORGOTTEN. The
    phase of a rebalancing, hysteresis, and volatilities of the book's own days are remembered for good.
    """
    kind = kind_of(portfolio, present_TS.shape[1])
    if portfolio.every > 1 or portfolio.weighting != "equal" or portfolio.volatility_target or kind in REMEMBERING:
        return None
    if kind == "head":
        return _until(portfolio, CENT / 2.0)  # of a position between -1 and 1
    if kind != "tilt":
        return _until(portfolio, FORGOTTEN)
    # In shares of one among n stocks: a weight, or what it moves by from one side of the scores to the other.
    largest = max(1.0 + portfolio.strength * LARGE_SCORE, 2.0 * portfolio.strength * LARGE_SCORE)
    longest = _until(portfolio, CENT / largest)
    n_T = present_TS[-(longest or LONGEST) - 1 :].sum(axis=1)
    fewest = int(n_T[n_T > 0].min(initial=present_TS.shape[1]))
    return _until(portfolio, CENT / largest * fewest)


def _until(portfolio: PortfolioConfig, share: float) -> int | None:
    """The sessions beyond which no more than a share of a portfolio's weights is left; None: more than LONGEST."""
    score, book = 1.0 - gain_of(portfolio.smoothing), 1.0 - portfolio.trade_rate
    left = 1.0
    for sessions in range(LONGEST):
        left = book * left + (1.0 - book) * score ** (sessions + 1)
        if left <= share:
            return sessions
    return None


def _first_row(bars: RunBars, today: int, seen: SeenDays, start: str | None, portfolio: PortfolioConfig) -> int:
    """The row on which the portfolio's book begins."""
    sessions_T = bars.universe.sessions_T
    if start is not None:
        first = row_of(sessions_T, start, "start", side="right")
        if first > today:
            raise UserError(f"--start {start} is after the close of {sessions_T[today]}")
        return first
    begin, day = seen.test_first or seen.chosen_from, str(sessions_T[today])
    if begin and begin > day:
        begin = seen.chosen_from if seen.chosen_from and seen.chosen_from <= day else day
    first = int(np.searchsorted(sessions_T, np.datetime64(begin))) if begin else 0
    traded_S = bars.universe.columns_of(bars.symbols)
    memory = memory_of(portfolio, bars.universe.present_TS[: today + 1, traded_S])
    return min(today, first if memory is None else max(first, today - memory))


def _forecast(model: TrainedModel, bars: RunBars, first: int, today: int, keep: bool) -> tuple[Forecast, Bars]:
    """The forecasts from the first row to today, and their bars."""
    make = partial(_made, model, bars)
    forecast = (
        kept_forecast(model, bars, first, today, partial(_needed, model, bars), make) if keep else make(first, today)
    )
    refuse_nothing(forecast, bars.universe, slice(first, today + 1))
    own = bars.universe.rows(slice(first, today + 1))
    return forecast, own if bars.symbols == own.symbols_S else own.of(bars.symbols)


def _made(model: TrainedModel, bars: RunBars, first: int, today: int) -> Forecast:
    """The forecasts from the first row to today, made of no more history than they depend on."""
    begin = _needed(model, bars, first, today)
    table = Table(bars.universe.rows(slice(begin, today + 1)))
    return forecast_of(model.predictor, table, bars.symbols, slice(first - begin, today + 1 - begin))


def _needed(model: TrainedModel, bars: RunBars, first: int, today: int) -> int:
    """The first row whose bars these forecasts depend on."""
    return rows_needed(bars.universe.present_TS, first, today, model.receptive_field + FEATURE_ROWS)


def rows_needed(present_TS: np.ndarray, first: int, today: int, own: int) -> int:
    """The first row from which on every symbol with a bar from `first` to today has `own` bars before it, or all.

    A symbol counts its own bars, whatever gaps it has, as features do.
    """
    alive_S = present_TS[first : today + 1].any(axis=0)
    before_TS = present_TS[:first, alive_S]
    after_TS = before_TS[::-1].cumsum(axis=0)  # how many bars from a row up to `first`, counted backwards
    short_S = after_TS[-1] < own if len(after_TS) else np.ones(0, bool)
    reached_S = len(before_TS) - 1 - (after_TS >= own).argmax(axis=0) if len(after_TS) else np.zeros(0, int)
    listed_S = before_TS.argmax(axis=0) if len(before_TS) else np.zeros(0, int)
    needed_S = np.where(short_S, listed_S, reached_S)[before_TS.any(axis=0)] if len(before_TS) else np.zeros(0, int)
    return int(needed_S.min()) if len(needed_S) else first


def _table(
    forecast: Forecast, bars: Bars, weight_S: np.ndarray, holding: Holding, config: ExperimentConfig
) -> tuple[pd.DataFrame, float]:
    """The rows of the last session, and the equity of the account. Raises UserError for an account worth nothing."""
    last = slice(len(bars.sessions_T) - 1, len(bars.sessions_T))
    today = bars.rows(last)
    ratio_TS = ratio_of(*median_and_uncertainty(forecast.rows(last), config.portfolio.horizon))
    score_S = across_stocks(ratio_TS, today.present_TS)[0] if len(bars.symbols_S) > 1 else ratio_TS[0]
    mark_S = _last_closes(bars)
    shares_S = _shares(holding, bars.symbols_S, mark_S)
    worth = holding.cash + float(np.nansum(shares_S * mark_S))
    if worth <= 0.0:
        raise UserError(
            f"the account is worth {worth:,.2f} at the close of {today.sessions_T[0]}: nothing can be traded"
        )
    order_S, equity = orders(shares_S, holding.cash, today.close_TS[0], mark_S, weight_S, config.profit_tracker)
    rules = config.profit_tracker
    table = pd.DataFrame({"close": today.close_TS[0]}, index=pd.Index(bars.symbols_S, name="symbol"))
    quantiles = frame_of(forecast.rows(last), today).droplevel("date").reindex(table.index)
    table = table.join(quantiles)
    table["score"], table["weight"] = score_S, weight_S
    table["shares"] = shares_S
    table["held"] = np.nan_to_num(shares_S * mark_S / equity) if equity > 0.0 else 0.0
    table["order"] = order_S
    table["side"] = np.where(order_S > 0, "buy", np.where(order_S < 0, "sell", ""))
    table["value"] = np.nan_to_num(np.abs(order_S) * today.close_TS[0])
    table["cost"] = table["value"] * (rules.commission + rules.slippage)
    return table.sort_values(["weight", "score"], ascending=False, kind="stable"), equity


def orders(
    shares_S: np.ndarray,
    cash: float,
    close_S: np.ndarray,
    mark_S: np.ndarray,
    weight_S: np.ndarray,
    rules: TradingRules,
) -> tuple[np.ndarray, float]:
    """The signed shares to trade, and the equity, as the fill engine decides them after a close.

    mark_S: the last known prices, by which a symbol without a bar is valued. The order is the same whatever the lag.
    """
    account = Account(len(shares_S), _at_a_close(rules))
    account.account_1["cash"] = cash
    account.book_S["shares"], account.book_S["mark"] = shares_S, np.nan_to_num(mark_S)
    account.step(close_S, close_S, close_S, close_S, weight_S)
    wanted_S = account.orders_S
    return np.where(np.isfinite(wanted_S), wanted_S - shares_S, 0.0), account.equity


def _at_a_close(rules: TradingRules) -> TradingRules:
    """The rules by which an order is decided; what a position costs by the day is charged by whoever holds it."""
    fields = {name: getattr(rules, name) for name in TradingRules.__dataclass_fields__}
    return TradingRules(**fields | {"borrow_rate": 0.0, "lag": 1, "stop_loss": 0.0, "take_profit": 0.0})


def _shares(holding: Holding, symbols_S: Sequence[str], mark_S: np.ndarray) -> np.ndarray:
    """The shares held of each symbol. Raises UserError for a position that these bars cannot value."""
    place: Mapping[str, int] = {symbol: s for s, symbol in enumerate(symbols_S)}
    if strange := [symbol for symbol in holding.positions if symbol not in place]:
        raise UserError(
            f"the account holds {listed(map(shown, strange))}, which {'is' if len(strange) == 1 else 'are'} not among "
            "the stocks of this forecast: give bars that have them (--stocks), or leave them out of the file"
        )
    shares_S = np.zeros(len(symbols_S))
    for symbol, shares in holding.positions.items():
        if not math.isfinite(mark_S[place[symbol]]):
            raise UserError(f"the account holds {shown(symbol)}, of which these bars have no price")
        shares_S[place[symbol]] = shares
    return shares_S


def _last_closes(bars: Bars) -> np.ndarray:
    """close_S: of each symbol's last bar, NaN without one."""
    present_TS = bars.present_TS
    at_S = len(present_TS) - 1 - present_TS[::-1].argmax(axis=0)
    return np.where(present_TS.any(axis=0), bars.close_TS[at_S, np.arange(present_TS.shape[1])], np.nan)


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(str(value))) and abs(float(str(value))) <= MOST_SHARES
