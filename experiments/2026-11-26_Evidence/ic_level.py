"""How often the scores of noise are said to differ from no skill, by the method in use and by those it was chosen from.

    python ic_level.py simulate --symbols 10 --market stocks --forecasts noise >> rows.jsonl
    python ic_level.py table rows.jsonl

Markets: `plain` has independent normal returns; `stocks` a common factor with 40 % of the variance and betas of
1 +- 0.3, GARCH(1,1) volatility (0.08, 0.90) of the factor and of each symbol, Student t(5) shocks, a Sharpe ratio of
0.6 a year, and labels and forecasts in log returns, with volatilities that differ by symbol; `driftless` the same with
a Sharpe ratio of 0, since momentum sees a drift, and then forecasts sides and the returns of volatile symbols.
Forecasts: `noise` and `momentum` (of the symbol's own past returns) are AR(1) with autocorrelation rho; `skill` is
noise with a correlation of --ic with the label. Forecasts of all rho, labels of all horizons and days of all
lengths come from one sample of 1,000 days, so cells of one sample are not independent.
"""

import argparse
import json
import math
import sys
from collections import defaultdict

import numpy as np
from numba import njit
from scipy.fft import dct
from scipy.signal import lfilter
from scipy.stats import norm
from scipy.stats import t as student

from hftraining.evidence import scores as product
from hftraining.evidence.bootstrap import resampled_days

LENGTHS, HORIZONS, RHOS = (250, 500, 1000), (1, 5, 20), (0.0, 0.9, 0.95, 0.99)
DAYS, BURN = max(LENGTHS), 600
CHUNK = 50


@njit(cache=True)
def _garch(shock_TS):
    out_TS = np.empty_like(shock_TS)
    variance_S = np.ones(shock_TS.shape[1])
    for t in range(len(shock_TS)):
        for s in range(shock_TS.shape[1]):
            out_TS[t, s] = math.sqrt(variance_S[s]) * shock_TS[t, s]
            variance_S[s] = 0.02 + 0.08 * out_TS[t, s] ** 2 + 0.90 * variance_S[s]
    return out_TS


def returns_of(rng, market, symbols):
    """Returns_TS of unit variance, BURN + DAYS + the longest horizon sessions."""
    n = BURN + DAYS + max(HORIZONS)
    if market == "plain":
        return rng.standard_normal((n, symbols))
    shock_TS = _garch(rng.standard_t(5, (n, symbols + 1)) / math.sqrt(5 / 3))
    beta_S = 1.0 + 0.3 * rng.standard_normal(symbols)
    drift = 0.6 / math.sqrt(252) if market == "stocks" else 0.0
    return math.sqrt(0.4) * beta_S * shock_TS[:, :1] + math.sqrt(0.6) * shock_TS[:, 1:] + drift


def sample(rng, market, forecasts, symbols, ic):
    """Forecast by (rho, horizon) and label by horizon, over DAYS."""
    return_TS = returns_of(rng, market, symbols)
    noise_TS = rng.standard_normal(return_TS.shape)
    volatility_S = np.exp(0.4 * rng.standard_normal(symbols)) if market != "plain" else np.ones(symbols)
    total_TS = np.cumsum(return_TS, axis=0)
    labels = {h: total_TS[BURN + h :][:DAYS] - total_TS[BURN:][:DAYS] for h in HORIZONS}
    made = {}
    for rho in RHOS:
        drive_TS = return_TS if forecasts == "momentum" else noise_TS
        x_TS = lfilter([math.sqrt(1 - rho**2)], [1.0, -rho], drive_TS, axis=0)[BURN:][:DAYS]
        for h in HORIZONS:
            skill_TS = ic * labels[h] / math.sqrt(h) + math.sqrt(1 - ic**2) * x_TS if ic else x_TS
            made[rho, h] = skill_TS * volatility_S
    return made, {h: label_TS * volatility_S for h, label_TS in labels.items()}


@njit(cache=True)
def _ranks_by_day(x_TS):
    out_TS = np.empty_like(x_TS)
    for t in range(len(x_TS)):
        order = np.argsort(x_TS[t])
        for place in range(len(order)):
            out_TS[t, order[place]] = place
    return out_TS


@njit(cache=True)
def _correlation_by_day(x_TS, y_TS):
    out_T = np.empty(len(x_TS))
    n = x_TS.shape[1]
    for t in range(len(x_TS)):
        sx = sy = sxx = syy = sxy = 0.0
        for s in range(n):
            sx += x_TS[t, s]
            sy += y_TS[t, s]
            sxx += x_TS[t, s] ** 2
            syy += y_TS[t, s] ** 2
            sxy += x_TS[t, s] * y_TS[t, s]
        out_T[t] = (sxy - sx * sy / n) / math.sqrt((sxx - sx * sx / n) * (syy - sy * sy / n))
    return out_T


def influence(x_TS, y_TS):
    """One number a day whose mean is the correlation over all pairs, as the method before had it."""
    x_TS, y_TS = (x_TS - x_TS.mean()) / x_TS.std(), (y_TS - y_TS.mean()) / y_TS.std()
    value = (x_TS * y_TS).mean()
    return value + (x_TS * y_TS - value / 2 * (x_TS**2 + y_TS**2)).mean(axis=1)


def _autocovariance(e_RT, lag):
    return (e_RT[:, lag:] * e_RT[:, : e_RT.shape[1] - lag]).sum(axis=1) / e_RT.shape[1]


def _bartlett(z_RT, lags):
    e_RT = z_RT - z_RT.mean(axis=1, keepdims=True)
    weights = [1.0] + [2.0 * (1.0 - k / (lags + 1.0)) for k in range(1, lags + 1)]
    return sum(w * _autocovariance(e_RT, k) for k, w in enumerate(weights)) / z_RT.shape[1]


def before(z_RT, h):
    """Newey and West with three times the overlap, t with days / lags degrees of freedom: the method before."""
    n = z_RT.shape[1]
    lags = min(3 * (h - 1), n // 3)
    return _bartlett(z_RT, lags) * n / (n - 1), student.ppf(0.975, n / (1 + lags) - 1)


def fixed_b(z_RT, h):
    """Newey and West with 1.3 sqrt(days) or twice the overlap, critical value of Kiefer and Vogelsang (2005)."""
    n = z_RT.shape[1]
    lags = int(max(1.3 * math.sqrt(n), 2 * h))
    b = (lags + 1) / n
    return _bartlett(z_RT, lags), 1.96 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3


def hansen_hodrick(z_RT, h):
    """Equal weights to the overlap, Bartlett's where that is negative; factor for the mean taken off; normal."""
    n = z_RT.shape[1]
    e_RT = z_RT - z_RT.mean(axis=1, keepdims=True)
    flat_R = sum((2.0 if k else 1.0) * _autocovariance(e_RT, k) for k in range(h)) / n
    return np.where(flat_R > 0, flat_R, _bartlett(z_RT, h - 1)) / (1 - h / n), norm.ppf(0.975)


def cosines(z_RT, h, most=2):
    """The method in use; `most`: by how many overlaps the number of cosines is capped."""
    n = z_RT.shape[1]
    freedom = min(max(1, int(0.41 * n ** (2 / 3))), n // (most * h))
    squares_RB = dct(z_RT - z_RT.mean(axis=1, keepdims=True), type=2, norm="ortho")[:, 1 : freedom + 1] ** 2
    return squares_RB.mean(axis=1) / n, student.ppf(0.975, freedom)


def leaning(right_RT, lean_RT, came_RT, h):
    """The method in use for accuracy: cosines, and of what a lean adds the first two alone."""
    n = right_RT.shape[1]
    by_lean_RT = lean_RT * came_RT.mean(axis=1, keepdims=True) / 2
    variance_R, critical = cosines(right_RT - by_lean_RT, h)
    slow_RB = dct(by_lean_RT - by_lean_RT.mean(axis=1, keepdims=True), type=2, norm="ortho")[:, 1:3] ** 2
    return variance_R + slow_RB.mean(axis=1) / n, critical


@njit(cache=True)
def _bootstrap(z_RT, block, draws, seed):
    np.random.seed(seed)
    count, n = z_RT.shape
    variance_R, quantile_R = np.empty(count), np.empty(count)
    day_T, distance_D = np.empty(n, np.int64), np.empty(draws)
    for r in range(count):
        mean = z_RT[r].mean()
        for d in range(draws):
            resampled_days(np.random.randint(0, n, n), np.random.random(n), 1.0 / block, day_T)
            distance_D[d] = abs(z_RT[r][day_T].mean() - mean)
        variance_R[r], quantile_R[r] = 1.0, np.quantile(distance_D, 0.95)
    return variance_R, quantile_R


def bootstrap(z_RT, h):
    """Stationary bootstrap of the mean, blocks of twice the overlap or days^(1/3), 199 draws, basic interval."""
    return _bootstrap(np.ascontiguousarray(z_RT), max(2.0 * h, z_RT.shape[1] ** (1 / 3)), 199, 1)


DAILY = {
    "new": cosines,  # of accuracy: `leaning`
    "old": before,
    "cosines, overlap x 3": lambda z_RT, h: cosines(z_RT, h, 3),
    "fixed-b": fixed_b,
    "hansen-hodrick": hansen_hodrick,
}


def _past_mean(x_TS, known_TS):
    count_T = np.cumsum(known_TS.sum(axis=1))
    w_TS = x_TS - (np.cumsum(x_TS.sum(axis=1)) / count_T)[:, None]
    return w_TS - w_TS.mean()


POOLED = {
    "new": product._instrument,
    "past mean only": _past_mean,
    "mean of the window": lambda x_TS, known_TS: x_TS,
}


def pooled(x_TS, y_TS, h, instrument, are_sides=False):
    """The product's score of a correlation over all pairs, with one of the instruments."""
    ours, product._instrument = product._instrument, instrument
    try:
        return product._pooled(x_TS, y_TS, h, are_sides)
    finally:
        product._instrument = ours


class Counts:
    """Rejections, samples, and intervals that hold the truth, by (days, horizon, rho, score, method)."""

    def __init__(self):
        self.rejected, self.held, self.samples = defaultdict(int), defaultdict(int), defaultdict(int)

    def add(self, key, rejected, held):
        """Arrays or single booleans."""
        self.rejected[key] += int(np.sum(rejected))
        self.held[key] += int(np.sum(held))
        self.samples[key] += int(np.size(rejected))


def _count_daily(counts, key, z_RT, no_skill, truth, with_bootstrap):
    n, h = key[0], key[1]
    methods = {"bootstrap": bootstrap} if with_bootstrap else DAILY
    for name, method in methods.items():
        variance_R, critical = method(z_RT[:, :n], h)
        mean_R, reach_R = z_RT[:, :n].mean(axis=1), critical * np.sqrt(variance_R)
        if key[3] == "accuracy" and name == "new":
            name = "cosines, lean and all"
        counts.add((*key, name), np.abs(mean_R - no_skill) > reach_R, np.abs(mean_R - truth) <= reach_R)


def _count_pooled(counts, key, x_TS, y_TS, truth, are_sides, instruments):
    n, h = key[0], key[1]
    for name, instrument in instruments.items():
        score = pooled(x_TS[:n], y_TS[:n], h, instrument, are_sides)
        if math.isfinite(score.t):
            counts.add((*key, name), not score.low <= 0.0 <= score.high, score.low <= truth <= score.high)


def simulate(arguments):
    """Rows of one market, kind of forecast and number of symbols, one JSON object a cell, to stdout."""
    symbols, is_small = arguments.symbols, arguments.symbols <= 10
    is_ranked = symbols > 2 and not arguments.only_mcc and not arguments.only_accuracy
    counts, truths = Counts(), defaultdict(list)
    last = arguments.first + arguments.samples
    for first in range(arguments.first, last, CHUNK):
        series, by_day, leans = defaultdict(list), defaultdict(list), defaultdict(list)
        for number in range(first, min(first + CHUNK, last)):
            rng = np.random.default_rng([arguments.seed, symbols, number])
            made, labels = sample(rng, arguments.market, arguments.forecasts, symbols, arguments.ic)
            ranked_labels = {h: _ranks_by_day(label_TS) for h, label_TS in labels.items()} if is_ranked else {}
            ranks = {}
            for (rho, h), x_TS in made.items():
                y_TS, sides, came = labels[h], np.sign(x_TS), np.sign(labels[h])
                cell = (h, rho)
                series[(*cell, "accuracy")].append((sides == came).mean(axis=1))
                leans[cell].append((sides.mean(axis=1), came.mean(axis=1)))
                if is_ranked:
                    series[(*cell, "ic")].append(_correlation_by_day(x_TS, y_TS))
                    where = (rho, h if arguments.ic else 0)
                    if where not in ranks:
                        ranks[where] = _ranks_by_day(x_TS)
                    series[(*cell, "rank_ic")].append(_correlation_by_day(ranks[where], ranked_labels[h]))
                for n in () if arguments.bootstrap or arguments.only_accuracy else LENGTHS:
                    if (is_small or arguments.only_mcc) and n >= arguments.least_days:
                        ours = {"new": product._instrument}
                        _count_pooled(counts, (n, h, rho, "mcc"), sides, came, 0.0, True, ours)
                        if symbols == 1:
                            chosen = POOLED if n == 500 else ours
                            _count_pooled(counts, (n, h, rho, "ic"), x_TS, y_TS, arguments.ic, False, chosen)
                            rank_x, rank_y = (product._ranks(a[:n], None) for a in (x_TS, y_TS))
                            _count_pooled(counts, (n, h, rho, "rank_ic"), rank_x, rank_y, 0.0, False, ours)
                            by_day[n, h, rho, "ic"].append(influence(x_TS[:n], y_TS[:n]))
                        if np.ptp(sides[:n]) and (is_small or n == 500):  # all sides of a short sample can be the same
                            by_day[n, h, rho, "mcc"].append(influence(sides[:n], came[:n]))
        for key, rows in by_day.items():
            _count_daily(counts, (*key, "influence"), np.stack(rows), 0.0, 0.0, False)
        for (h, rho, name), rows in series.items():
            z_RT = np.stack(rows)
            truths[h, rho, name].append(z_RT.mean())
            # Daily correlations of few symbols are a little smaller than the true one: the truth is their own mean.
            if arguments.only_mcc:
                continue
            for n in LENGTHS:
                no_skill = 0.5 if name == "accuracy" else 0.0
                truth = arguments.truths.get(f"{h},{rho},{name}", no_skill) if arguments.ic else no_skill
                _count_daily(counts, (n, h, rho, name), z_RT, no_skill, truth, arguments.bootstrap)
                if name == "accuracy":
                    lean_RT, came_RT = (np.stack(part)[:, :n] for part in zip(*leans[h, rho], strict=True))
                    variance_R, critical = leaning(z_RT[:, :n], lean_RT, came_RT, h)
                    distance_R, reach_R = z_RT[:, :n].mean(axis=1), critical * np.sqrt(variance_R)
                    far_R, off_R = np.abs(distance_R - 0.5), np.abs(distance_R - truth)
                    counts.add((n, h, rho, name, "new"), far_R > reach_R, off_R <= reach_R)
        print(f"{first + CHUNK} samples", file=sys.stderr, flush=True)
    for (*key, method), samples in counts.samples.items():
        n, h, rho, score, *by = key
        row = {name: getattr(arguments, name) for name in ("market", "forecasts", "symbols", "ic")}
        row |= {"days": n, "horizon": h, "rho": rho, "score": score, "method": " ".join([*by, method])}
        row |= {"samples": samples, "rejected": counts.rejected[(*key, method)] / samples}
        row |= {"held": counts.held[(*key, method)] / samples}
        if (h, rho, score) in truths:
            row |= {"mean": float(np.mean(truths[h, rho, score]))}
        print(json.dumps(row))


# ---- the tables -------------------------------------------------------------------------------------------------

SCORES = ("ic", "rank_ic", "accuracy", "mcc")


def _percent(share):
    return "" if share is None else f"{share:.1%}"


def table(rows):
    """Markdown: a table a market, kind of forecast and score of the method in use, then a line a candidate."""
    cells = {}
    for row in rows:
        kind = (row["market"], row["forecasts"], row["ic"], row["symbols"])
        key = (*kind, row["score"], row["method"], row["days"], row["horizon"], row["rho"])
        if key in cells:  # of another part of the same samples
            others, row = cells[key], dict(row)
            total = others["samples"] + row["samples"]
            for name in ("rejected", "held"):
                row[name] = (row[name] * row["samples"] + others[name] * others["samples"]) / total
            row["samples"] = total
        cells[key] = row
    kinds = sorted({key[:4] for key in cells})
    for kind in kinds:
        print(f"\n**{kind[0]}, {kind[1]}{f' of IC {kind[2]}' if kind[2] else ''}, {kind[3]} symbols**\n")
        print("| days | horizon | " + " | ".join(f"{name}, rho {rho:g}" for name in SCORES for rho in RHOS) + " |")
        print("|" + "---|" * (2 + len(SCORES) * len(RHOS)))
        for n in LENGTHS:
            for h in HORIZONS:
                found = [cells.get((*kind, name, "new", n, h, rho)) for name in SCORES for rho in RHOS]
                print(f"| {n} | {h} | " + " | ".join(_percent(row and row["rejected"]) for row in found) + " |")
    print(
        "\n| market | forecasts | symbols | score | method | samples"
        " | least | mean | most | outside 3 to 7 % | 250 days |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        for score, method in sorted({key[4:6] for key in cells if key[:4] == kind}):
            mine = [row for key, row in cells.items() if key[:6] == (*kind, score, method)]
            long = [row["rejected"] for row in mine if row["days"] >= 500]
            short = [row["rejected"] for row in mine if row["days"] < 500]
            outside = sum(not 0.03 <= share <= 0.07 for share in long)
            least = f"{min(row['samples'] for row in mine)}"
            ends = [
                _percent(min(long)),
                _percent(float(np.mean(long))),
                _percent(max(long)),
                f"{outside} of {len(long)}",
            ]
            ends.append(f"{min(short):.1%} to {max(short):.1%}" if short else "")
            name = f"{kind[1]} {kind[2]:g}" if kind[2] else kind[1]
            print("| " + " | ".join([kind[0], name, str(kind[3]), score, method, least, *ends]) + " |")


def main():
    """Simulate, or print the tables of what was simulated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("simulate")
    run.add_argument("--symbols", type=int, required=True)
    run.add_argument("--market", choices=("plain", "stocks", "driftless"), default="plain")
    run.add_argument("--forecasts", choices=("noise", "momentum", "skill"), default="noise")
    run.add_argument("--ic", type=float, default=0.0, help="of the forecasts with skill")
    run.add_argument("--samples", type=int, default=2000)
    run.add_argument("--first", type=int, default=0, help="number of the first sample, to split a run into several")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--only-mcc", action="store_true", help="of many symbols: slow, and so apart")
    run.add_argument("--only-accuracy", action="store_true")
    run.add_argument("--bootstrap", action="store_true", help="of the means over days only: slow, and so apart")
    run.add_argument("--least-days", type=int, default=0, help="of a correlation over all pairs")
    run.add_argument("--truths", type=json.loads, default={}, help="expected daily scores of skill, from a first run")
    shown = commands.add_parser("table")
    shown.add_argument("rows")
    arguments = parser.parse_args()
    if arguments.command == "simulate":
        simulate(arguments)
    else:
        with open(arguments.rows) as file:
            table([json.loads(line) for line in file])


if __name__ == "__main__":
    main()
