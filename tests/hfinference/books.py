"""Books of weights on real bars: fifty that know nothing of the future, and those that do."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hftraining.core.bars import Bars
from hftraining.trading.config import TradingRules
from hftraining.trading.strategies import STRATEGIES

LEAD = 260  # sessions before the first decision


@dataclass(frozen=True)
class Market:
    """Some stocks over some sessions, and a source of luck."""

    bars: Bars
    rng: np.random.Generator

    @property
    def close(self):
        return self.bars.close_TS

    @property
    def n(self):
        return self.close.shape[1]

    @property
    def daily(self):
        return move(self.close, self.close, -1, 0)

    @property
    def market(self):
        return pd.DataFrame(self.daily).mean(axis=1)

    def past(self, days, how="sum"):
        return getattr(pd.DataFrame(self.daily).rolling(days, min_periods=max(1, days // 2)), how)().to_numpy()

    def average(self, days):
        return pd.DataFrame(self.close).rolling(days).mean().to_numpy()

    def later(self, first, last):
        """The return from one open to another, so many sessions on."""
        return move(self.bars.open_TS, self.bars.open_TS, first, last)

    def noisy(self, known, noise):
        spread = centred(known) / np.nanstd(centred(known))
        return np.nan_to_num(spread) + noise * self.rng.normal(size=known.shape)


def ahead(price, days):
    return pd.DataFrame(price).shift(-days).to_numpy()


def move(start, end, first, last):
    return np.log(ahead(end, last) / ahead(start, first))


def centred(score):
    return score - np.nan_to_num(
        np.nansum(score, axis=1, keepdims=True) / np.isfinite(score).sum(axis=1, keepdims=True)
    )


def shared_out(score):
    score = np.nan_to_num(score)
    gross = np.abs(score).sum(axis=1, keepdims=True)
    return score / np.where(gross > 0, gross, 1.0)


def best(score, part):
    """Equal weights in the best part of the day's stocks, at least one."""
    known = np.isfinite(score)
    rank = np.argsort(np.argsort(-np.where(known, score, -np.inf), axis=1), axis=1)
    return shared_out((rank < np.maximum(1, known.sum(axis=1, keepdims=True) * part)) & known)


def both_sides(score):
    return shared_out(centred(score))


def every(weights, days, rows=False):
    """Decided on every so many days; with rows the days between repeat the decision, else they decide nothing."""
    place = np.arange(len(weights))
    if rows:
        return weights[place - place % days]
    return np.where((place % days == 0)[:, None], weights, np.nan)


def moved(weights, days):
    return np.nan_to_num(ahead(weights, days))


def one_stock(market, held):
    """All in one stock where a matrix of conditions holds for it."""
    chosen = market.rng.integers(market.n)
    weights = np.zeros(market.close.shape)
    weights[:, chosen] = held[:, chosen]
    return weights


def together(market, part):
    """The same part of the capital, a number a day, over all stocks."""
    return np.tile(np.asarray(part, float)[:, None] / market.n, (1, market.n))


def ridge(market):
    """A linear model of past returns, learned anew each quarter from the days before."""
    x = np.stack([np.nan_to_num(centred(market.past(days))) for days in (1, 5, 21, 63)], axis=-1)
    x /= x.std(axis=(0, 1))
    y, out = np.nan_to_num(centred(market.later(1, 2))), np.zeros(market.close.shape)
    for t in range(252, len(x), 63):
        past = x[: t - 2].reshape(-1, 4)
        out[t : t + 63] = x[t : t + 63] @ np.linalg.solve(past.T @ past + 100 * np.eye(4), past.T @ y[: t - 2].ravel())
    return out


def held_once(market):
    weights = np.full(market.close.shape, np.nan)
    weights[LEAD] = 1.0 / market.n
    return weights


def drifted(market):
    worth = np.nan_to_num(market.close / market.close[0], nan=1.0)
    return worth / worth.sum(axis=1, keepdims=True)


def few_for_good(market):
    chosen = market.rng.permutation(market.n) < max(1, market.n // 6)
    return np.tile(chosen / chosen.sum(), (len(market.close), 1))


def skilled(market):
    return shared_out(0.03 * market.noisy(market.later(1, 2), 0.0) + market.rng.normal(size=market.close.shape))


Maker = Callable[[Market], np.ndarray]
HONEST: dict[str, Maker] = {
    "random": lambda m: shared_out(m.rng.normal(size=m.close.shape)),
    "random, long, weekly": lambda m: every(shared_out(m.rng.random(m.close.shape) ** 4), 5),
    "random, held": lambda m: every(shared_out(m.rng.normal(size=m.close.shape)), 21, rows=True),
    "random stocks for good": few_for_good,
    "buy and hold": held_once,
    "buy and hold, as it drifts": drifted,
    "equal weights at the month's end": lambda m: every(together(m, np.ones(len(m.close))), 21),
    "equal weights every day": lambda m: together(m, np.ones(len(m.close))),
    "turn of the month": lambda m: together(m, np.arange(len(m.close)) % 21 < 4),
    "a ridge of past returns": lambda m: both_sides(ridge(m)),
    "a ridge, long, monthly": lambda m: every(best(ridge(m), 0.2), 21),
    "skill": skilled,
    "low beta": lambda m: best(-pd.DataFrame(m.daily).rolling(126).corr(m.market).to_numpy(), 0.3),
    "relative strength index": lambda m: (np.maximum(m.daily, 0) > 0) * (m.past(14) < -0.05) / m.n,
    "breakout": lambda m: shared_out(m.close >= pd.DataFrame(m.close).rolling(20).max().to_numpy()),
    "bollinger": lambda m: np.clip((m.average(20) - m.close) / m.average(20) * 10, -1, 1) / m.n,
    "volatility target": lambda m: together(m, np.minimum(1, 0.006 / m.market.rolling(20).std())),
    "volatility target, fast": lambda m: together(m, np.minimum(1, 0.006 / m.market.ewm(com=5).std())),
    "gap fade": lambda m: both_sides(-move(m.close, m.bars.open_TS, -1, 0)),
    "volume": lambda m: both_sides(m.bars.volume_TS / pd.DataFrame(m.bars.volume_TS).rolling(20).mean().to_numpy()),
    "one stock, above its average": lambda m: one_stock(m, m.close > m.average(50)),
    "one stock, two averages": lambda m: one_stock(m, m.average(5) > m.average(20)),
    "one stock, after it fell": lambda m: one_stock(m, m.daily < 0),
    "one stock, random": lambda m: one_stock(m, m.rng.random(m.close.shape) < 0.5),
    **{name: lambda m, made=made: made(m.close, TradingRules()) for name, made in STRATEGIES.items()},
    **{f"momentum of {d} days": lambda m, d=d: best(m.past(d), 0.2) for d in (5, 10, 21, 63, 126)},
    **{f"momentum of {d} days, both sides": lambda m, d=d: both_sides(m.past(d)) for d in (5, 21)},
    **{f"momentum of {d} days, monthly": lambda m, d=d: every(best(m.past(d), 0.2), 21) for d in (63, 126)},
    **{f"reversal of {d} days": lambda m, d=d: both_sides(-m.past(d)) for d in (1, 2, 5)},
    **{f"losers of {d} days": lambda m, d=d: best(-m.past(d), 0.2) for d in (1, 5)},
    **{f"inverse volatility of {d} days": lambda m, d=d: shared_out(1 / m.past(d, "std")) for d in (20, 60)},
    **{
        f"averages of {a} and {b} days": lambda m, a=a, b=b: (m.average(a) > m.average(b)) / m.n
        for a, b in ((1, 5), (1, 20), (2, 5), (5, 20), (10, 20), (50, 200))
    },
}  # fmt: skip


def of_the_day(m):
    return move(m.bars.open_TS, m.close, 0, 0)


PLANTED: dict[str, Maker] = {
    "the day's move, dated with the day": lambda m: both_sides(of_the_day(m)),
    "the same, long": lambda m: best(of_the_day(m), 0.2),
    "the same, as noise": lambda m: both_sides(m.noisy(of_the_day(m), 1.5)),
    "the same, weekly": lambda m: every(best(of_the_day(m), 0.2), 5),
    "the same, one stock": lambda m: one_stock(m, of_the_day(m) > 0),
    "tomorrow": lambda m: both_sides(m.later(1, 2)),
    "tomorrow, as noise": lambda m: both_sides(m.noisy(m.later(1, 2), 3.0)),
    "tomorrow, almost noise": lambda m: both_sides(m.noisy(m.later(1, 2), 6.0)),
    "tomorrow's close, long": lambda m: best(m.noisy(move(m.close, m.close, 0, 1), 2.0), 0.2),
    "tomorrow's best": lambda m: best(m.later(1, 2), 0.0),
    "the best of the week": lambda m: every(best(m.later(1, 6), 0.1), 5),
    "the best of the week, in daily rows": lambda m: every(best(m.later(1, 6), 0.1), 5, rows=True),
    "the best of the month": lambda m: every(best(m.later(1, 22), 0.2), 21),
    "a tilt to tomorrow": lambda m: 0.8 / m.n + 0.2 * best(m.later(1, 2), 0.1),
    "the market's tomorrow": lambda m: together(m, np.nan_to_num(m.later(1, 2)).mean(axis=1) > 0),
    "one stock's tomorrow": lambda m: one_stock(m, m.later(1, 2) > 0),
    "a reversal, a day early": lambda m: moved(both_sides(-m.daily), 1),
    "averages, a day early": lambda m: moved((m.close > m.average(10)) / m.n, 1),
    "tomorrow, a day late": lambda m: moved(both_sides(m.later(1, 2)), -1),
    "a centred average": lambda m: best(ahead(m.past(11), 5), 0.2),
}


def drawn_market(bars: Bars, seed: int, years: int = 3, most: int = 30) -> Market:
    """Some years of some stocks that trade in most of them."""
    rng = np.random.default_rng(seed)
    n_sessions = min(LEAD + 252 * years, len(bars.sessions_T))
    first = int(rng.integers(0, len(bars.sessions_T) - n_sessions + 1))
    rows = bars.rows(slice(first, first + n_sessions))
    known = np.flatnonzero(rows.present_TS.mean(axis=0) > 0.9)
    chosen = np.sort(rng.permutation(known)[: int(rng.integers(min(10, len(known)), most))])
    return Market(rows.of([rows.symbols_S[s] for s in chosen]), rng)


def book_of(made: Maker, market: Market) -> np.ndarray:
    """The weights from the session LEAD on; NaN throughout where nothing is decided."""
    with np.errstate(all="ignore"):
        weights_TS = np.array(made(market), float)
    decided_T = ~np.isnan(weights_TS).all(axis=1)
    weights_TS = np.where(decided_T[:, None], np.nan_to_num(weights_TS), np.nan)
    weights_TS[:LEAD] = np.nan
    return weights_TS
