"""Other futures: bars of which all after a day is replaced, presence and events too; and bars of which all before is
rescaled.

Legend: T sessions, S symbols, N sessions that are replaced.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from hftraining.core.bars import ARRAYS, Bars

HOLES = 0.1  # share of later bars that are missing
LATE, SOON = 0.3, 10  # share of symbols that begin later; sessions within which half of the early ends lie
NEW = 25  # bars of a symbol that may lack features yet
AT_ONCE = 3  # sessions after which one symbol that trades on the day has ended
WALK, GAP, REACH = 0.03, 0.02, 0.02  # log price moves: close to close, close to open, beyond open and close
EXTREME = 3.0  # the noise goes this many times above the highest price before it, and below the lowest
MOVE_OF_THE_DAY = 0.05  # log price: the most that a day moves from its open where its open is kept
FACTORS = (1 / 2, 1 / 3, 2.0, 0.97)  # of prices before a split, a reverse split or a dividend
LEAST_VOLUME = 1e5  # shares; a smaller volume is not scaled, since "one share more" would show in its logarithm


def other_future(
    bars: Bars,
    day: int,
    rng: np.random.Generator,
    *,
    keep_open: bool = False,
    judged: slice | None = None,
    early_S: np.ndarray | None = None,
) -> Bars:
    """Replace every bar after row `day`: prices, volumes, which bars there are, and later splits and dividends.

    Prices go far above and far below all before them. Symbols that trade on the day have no bar on the next one, or
    have one although they had none; some end early, and some that had ended or were not listed yet go on. keep_open:
    replace the day itself, too, except for its open and its presence; it then moves little, lest it ruin an account.
    judged: the rows, around the day, over which accounts are kept. An account closes what never trades again at its
    last bar, so a symbol that has traded in these rows by the day trades again in them if it did so before. early_S:
    where a symbol ends early, not all of them; a random half unless given.
    """
    first = day + 1
    present_NS = _other_presence(bars.present_TS, first, rng, judged, early_S)
    arrays = {name: getattr(bars, name).copy() for name in ARRAYS}
    for name, values_NS in _noise(bars, first, rng).items():
        arrays[name][first:] = np.where(present_NS, values_NS, np.nan)
    if keep_open:
        _move_the_day(arrays, day, rng)
    return replace(bars, events=_other_events(bars, day, rng), **arrays)


def half_of(present_TS: np.ndarray, day: int, rng: np.random.Generator) -> np.ndarray:
    """A random half of the symbols, of each kind alike; none of one symbol alone."""
    n_symbols = present_TS.shape[1]
    kind_S = np.select(_kinds(present_TS, day), np.arange(4))
    order = np.argsort(kind_S + rng.random(n_symbols))
    is_half_S = np.zeros(n_symbols, bool)
    is_half_S[order[rng.integers(0, 2) :: 2]] = n_symbols > 1
    return is_half_S


def _kinds(present_TS: np.ndarray, day: int) -> list[np.ndarray]:
    """Where symbols trade on the day and long have, where they are new, where they traded earlier, and all others."""
    today_S, bars_S = np.array(present_TS[day]), present_TS[: day + 1].sum(axis=0)
    is_old_S, has_traded_S = bars_S > NEW, bars_S > 0
    return [today_S & is_old_S, today_S & ~is_old_S, ~today_S & has_traded_S, ~has_traded_S]


def rescaled_past(bars: Bars, day: int, rng: np.random.Generator) -> Bars:
    """Multiply all prices up to row `day` as adjustment for a later split or dividend does, each symbol by a factor.

    Volumes are divided by it, unless they are so small that a feature of their logarithm is not free of scale.
    """
    arrays = {name: getattr(bars, name).copy() for name in ARRAYS}
    factor_S = rng.choice(FACTORS, len(bars.symbols_S))
    volume_TS = arrays.pop("volume_TS")
    for array_TS in arrays.values():
        array_TS[: day + 1] *= factor_S
    is_large_S = np.nan_to_num(volume_TS[: day + 1], nan=np.inf).min(axis=0) >= LEAST_VOLUME
    volume_TS[: day + 1] /= np.where(is_large_S, factor_S, 1.0)
    events = [
        _event(name, bars.sessions_T[day + 1], 1 / factor)
        for name, factor in zip(bars.symbols_S, factor_S, strict=True)
    ]
    return replace(bars, volume_TS=volume_TS, events=_with(bars.events, events), **arrays)


def _other_presence(
    present_TS: np.ndarray,
    first: int,
    rng: np.random.Generator,
    judged: slice | None,
    early_S: np.ndarray | None,
) -> np.ndarray:
    """Where there are bars from row `first` on."""
    n, n_symbols = present_TS[first:].shape
    present_NS: np.ndarray = rng.random((n, n_symbols)) > HOLES
    row_N1 = np.arange(n)[:, None]
    # Half of the symbols end early, some of them at once; one trades on the last session, as some symbol always does.
    is_early_S = half_of(present_TS, first - 1, rng) if early_S is None else early_S
    soon_S = np.where(rng.random(n_symbols) < 0.5, min(n, SOON), n)
    last_S = n - rng.integers(0, 1 + min(3, n // 8), n_symbols)
    last_S[rng.choice(np.flatnonzero(~is_early_S))] = n
    present_NS[-1] |= last_S == n
    present_NS &= row_N1 < np.where(is_early_S, rng.integers(0, soon_S), last_S)
    present_NS &= row_N1 >= np.where(rng.random(n_symbols) < LATE, rng.integers(0, 1 + n // 4, n_symbols), 0)
    ending = np.flatnonzero(is_early_S & _kinds(present_TS, first - 1)[0])[
        :1
    ]  # one that trades on the day has its last bars now
    present_NS[AT_ONCE:, ending], present_NS[min(AT_ONCE, n) - 1, ending] = False, True
    # The next session: the contrary for half of the symbols of a kind, but for one that has never traded: two listings
    # more and less could make up for each other.
    tomorrow_S = np.array(present_TS[first])
    for kind, is_kind_S in enumerate(_kinds(present_TS, first - 1)):
        members = rng.permutation(np.flatnonzero(is_kind_S))
        contrary, same = np.split(members, [(len(members) + 1) // 2 if kind < 3 else 1])
        present_NS[0, contrary], present_NS[0, same] = ~tomorrow_S[contrary], tomorrow_S[same]
    if judged is not None:
        old_TS = present_TS[judged.start : judged.stop, :]
        _keep_trading(present_NS[: judged.stop - first], old_TS, first - judged.start, rng)
    return present_NS


def _keep_trading(new_NS: np.ndarray, old_TS: np.ndarray, first: int, rng: np.random.Generator) -> None:
    """Let a symbol with a bar before row `first` have one from then on where it had one, and else none. In place."""
    again_S = np.any(old_TS[first:], axis=0)
    for s in np.flatnonzero(np.any(old_TS[:first], axis=0)):
        if not again_S[s]:
            new_NS[:, s] = False
        elif not np.any(new_NS[:, s]):
            new_NS[rng.integers(min(1, len(new_NS) - 1), len(new_NS)), s] = True


def _noise(bars: Bars, first: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Prices and volumes from row `first` on, as if every symbol traded."""
    before_TS = bars.close_TS[:first]
    low_S = np.nanmin(before_TS, axis=0, initial=np.inf)
    high_S = np.nanmax(before_TS, axis=0, initial=-np.inf)
    unknown_S = ~np.isfinite(low_S)
    low_S[unknown_S] = high_S[unknown_S] = 50.0
    shape = bars.close_TS[first:].shape
    # A swing beyond both extremes, up first or down first.
    middle_S, half_S = np.log(low_S * high_S) / 2.0, np.log(high_S / low_S) / 2.0 + np.log(EXTREME)
    phase_N1 = 2.0 * np.pi * (np.arange(shape[0])[:, None] + 0.5) / max(4, shape[0])
    phase_NS = phase_N1 + np.pi * rng.integers(0, 2, shape[1])
    log_close = middle_S + half_S * np.sin(phase_NS) + WALK * np.cumsum(rng.standard_normal(shape), axis=0)
    log_open = log_close + GAP * rng.standard_normal(shape)
    reach = REACH * np.abs(rng.standard_normal((2, *shape)))
    return {
        "open_TS": np.exp(log_open),
        "high_TS": np.exp(np.maximum(log_open, log_close) + reach[0]),
        "low_TS": np.exp(np.minimum(log_open, log_close) - reach[1]),
        "close_TS": np.exp(log_close),
        "volume_TS": np.exp(rng.uniform(0.0, 24.0, shape)),
    }


def _move_the_day(arrays: dict[str, np.ndarray], day: int, rng: np.random.Generator) -> None:
    """Replace the bars of a day after their open. In place."""
    open_S = arrays["open_TS"][day]
    close_S = open_S * np.exp(rng.uniform(-MOVE_OF_THE_DAY, MOVE_OF_THE_DAY, open_S.shape))
    arrays["close_TS"][day] = close_S
    arrays["high_TS"][day] = np.maximum(open_S, close_S) * np.exp(rng.uniform(0.0, 0.01, open_S.shape))
    arrays["low_TS"][day] = np.minimum(open_S, close_S) * np.exp(-rng.uniform(0.0, 0.01, open_S.shape))
    arrays["volume_TS"][day] *= np.exp(rng.uniform(-3.0, 3.0, open_S.shape))


def _other_events(bars: Bars, day: int, rng: np.random.Generator) -> pd.DataFrame:
    """Half of the later splits and dividends dropped, and others invented, one of them on the next session."""
    later = _dates(bars.events) > bars.sessions_T[day]
    dropped = later & (rng.random(len(later)) < 0.5)
    symbols = rng.permutation(np.asarray(bars.symbols_S, object))[: 1 + len(bars.symbols_S) // 2]
    rows = [day + 1, *rng.integers(day + 1, len(bars.sessions_T), len(symbols) - 1)]
    events = [
        _event(name, bars.sessions_T[row], float(rng.choice([2.0, 3.0, 0.1])))
        for name, row in zip(symbols, rows, strict=True)
    ]
    return _with(bars.events[~dropped], events)


def _event(symbol: str, session: np.datetime64, split: float) -> dict[str, object]:
    return {"symbol": symbol, "date": pd.Timestamp(session), "split": split, "dividend": 0.1}


def _with(events: pd.DataFrame, more: list[dict[str, object]]) -> pd.DataFrame:
    made = pd.DataFrame(more)
    return made if events.empty else pd.concat([events, made], ignore_index=True)


def _dates(events: pd.DataFrame) -> np.ndarray:
    return pd.to_datetime(events["date"]).to_numpy().astype("datetime64[D]")
