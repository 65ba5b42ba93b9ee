"""From a folder of parquet files to the array that a model is trained on, beside pandas.

    python experiments/benchmarks/load_bars.py [--files 500] [--rows 2500] [--runs 5]

Random walks, a file a stock, as pandas writes them. Every run is a process of its own on one thread, and they take
turns, so that a busy machine slows them alike: CPU time from the first file to the standardised array of the 15
columns of the set `basic`, after one run on two files that compiles and imports; and peak memory of the process.

- ours: load_bars (which also audits every row and names gaps by the exchange's calendar), make_features, Scaler; all of
  the array is standardised, and nothing is kept.
- pandas: read_parquet of each file, one concat along the columns, rolling windows of wide frames; no audit and no
  calendar. It is the fastest of three ways to align the files (pivot takes fifteen times, unstack four times as long).
- cached: bars, features and scaler from the cache that a run before has filled, looked up by the files as they are now
  and held against a sample. The array is standardised as windows are drawn from it, as training does; what all of it
  at once takes is said beside, and does not count.
- filling: the run that fills the cache.

The two arrays are compared where both are known. The last lines say what the parts of ours took.
"""

import argparse
import email.parser  # noqa: F401  # a run has imported it before it looks anything up
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))

# After the line above.
# ruff: noqa: E402
from hftraining.core.bars import Bars
from hftraining.market.config import StocksConfig
from hftraining.market.features.cache import kept_features
from hftraining.market.features.names import BASIC
from hftraining.market.features.scaler import SCALED_LIMIT, Scaled, Scaler
from hftraining.market.features.table import make_features
from hftraining.market.prices import load_bars

TRAIN = 0.7  # of the sessions
COLUMNS = ("open", "high", "low", "close", "volume")


def main() -> int:
    """Write the files, run all ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run(args.child[0], Path(args.child[1]))))
        return 0
    ways = ("pandas", "ours", "cached")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), args.files, args.rows)
        runs = {way: [] for way in ways}
        time.sleep(2.1)  # files that were just written are not kept
        runs["filling"] = [child("cached", folder)]
        for _ in range(args.runs):
            for way in ways:
                runs[way].append(child(way, folder))
        apart = np.abs(np.load(Path(folder) / "ours.npy") - np.load(Path(folder) / "pandas.npy"))
    base = median(found["cpu"] for found in runs["pandas"])
    print(f"{args.files} files of {args.rows} rows, {args.runs} runs each")
    for way, found in runs.items():
        seconds = sorted(one["cpu"] for one in found)
        peak = median(one["peak"] for one in found) / 1024
        spread = f"{seconds[0]:.3f} to {seconds[-1]:.3f}"
        share = median(seconds) / base
        print(f"{way:8} CPU {median(seconds):6.3f} s ({spread}), {share:.2f} of pandas'; peak {peak:.0f} MiB")
    for way in runs:
        parts = {part: median(one["parts"][part] for one in runs[way]) for part in runs[way][0]["parts"]}
        print(f"{way:8} " + ", ".join(f"{part} {seconds:.3f} s" for part, seconds in parts.items()))
    print(f"largest difference of the arrays, in standard deviations: {apart.max():.1e}")
    return 0


def write(folder: Path, n_files: int, n_rows: int) -> None:
    """A file a stock, and in the folder beside them two of the same for the first run."""
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2006-01-02", periods=n_rows)
    for name in ("all", "two"):
        (folder / name).mkdir()
    for s in range(n_files):
        close = 50.0 * np.exp(np.cumsum(rng.normal(0.0002, 0.02, n_rows)))
        opens = close * np.exp(rng.normal(0, 0.005, n_rows))
        high = np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.005, n_rows)))
        low = np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.005, n_rows)))
        volume = np.round(np.exp(rng.normal(14, 0.4, n_rows)))
        columns = dict(zip(COLUMNS, (opens, high, low, close, volume), strict=True))
        for name in ("all", "two") if s < 2 else ("all",):
            pd.DataFrame({"date": days} | columns).to_parquet(folder / name / f"S{s:04}.parquet", index=False)


def child(way: str, folder: str) -> dict:
    """What one process prints, on one thread, with a cache of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"XDG_CACHE_HOME": f"{folder}/cache"}
    command = [sys.executable, str(HERE), "--child", way, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def run(way: str, folder: Path) -> dict:
    """One way in this process: its CPU time, that of its parts, and the peak of the process."""
    work = {"pandas": by_pandas, "ours": by_us, "cached": by_cache}[way]
    work(folder / "two")
    parts: dict[str, float] = {}
    start = time.process_time()
    array_TSF = work(folder / "all", parts)
    cpu = time.process_time() - start
    start = time.process_time()
    array_TSF = np.asarray(array_TSF)
    if way == "cached":
        timed(parts, "(standardising all of it)", start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.save(folder / f"{way}.npy", array_TSF)
    return {"cpu": cpu, "peak": peak, "parts": parts}


def timed(parts: dict[str, float], name: str, since: float) -> float:
    """Note what a part took, and begin the next one."""
    now = time.process_time()
    parts[name] = now - since
    return now


def by_us(folder: Path, parts: dict[str, float] | None = None) -> np.ndarray:
    """The product's way without a cache."""
    parts = {} if parts is None else parts
    start = time.process_time()
    bars = load_bars(StocksConfig(source="files", path=str(folder), cache=False))
    start = timed(parts, "bars", start)
    features = make_features(bars, BASIC)
    start = timed(parts, "features", start)
    array_TSF = Scaler.fit(features, train_of(bars)).scale(features.values_TSF)
    timed(parts, "scaler", start)
    return array_TSF


def by_cache(folder: Path, parts: dict[str, float] | None = None) -> Scaled:
    """The product's way with the cache."""
    parts = {} if parts is None else parts
    start = time.process_time()
    bars = load_bars(StocksConfig(source="files", path=str(folder)))
    start = timed(parts, "bars", start)
    features = kept_features(bars, BASIC, make_features)
    start = timed(parts, "features", start)
    scaled = Scaled(features.values_TSF, Scaler.fit(features, train_of(bars)))
    timed(parts, "scaler", start)
    return scaled


def train_of(bars: Bars) -> slice:
    """The training days."""
    return slice(0, int(TRAIN * len(bars.sessions_T)))


def by_pandas(folder: Path, parts: dict[str, float] | None = None) -> np.ndarray:
    """The same columns with pandas alone."""
    parts = {} if parts is None else parts
    start = time.process_time()
    frames = {path.stem: pd.read_parquet(path).set_index("date") for path in sorted(folder.iterdir())}
    start = timed(parts, "read", start)
    table = pd.concat(frames, axis=1)
    opens, high, low, close, volume = (table.xs(name, axis=1, level=1) for name in COLUMNS)
    start = timed(parts, "align", start)
    values_TSF = np.stack(columns_of(opens, high, low, close, volume), axis=2).astype(np.float32)
    values_TSF[~np.isfinite(values_TSF).all(axis=2)] = np.nan
    start = timed(parts, "features", start)
    train_NF = values_TSF[: int(TRAIN * len(values_TSF))].reshape(-1, values_TSF.shape[2])
    train_NF = train_NF[np.isfinite(train_NF[:, 0])].astype(np.float64)
    scaled_TSF = (values_TSF - train_NF.mean(axis=0).astype(np.float32)) / train_NF.std(axis=0).astype(np.float32)
    scaled_TSF = np.nan_to_num(np.clip(scaled_TSF, -SCALED_LIMIT, SCALED_LIMIT), nan=0.0)
    timed(parts, "scaler", start)
    return scaled_TSF


def columns_of(
    opens: pd.DataFrame, high: pd.DataFrame, low: pd.DataFrame, close: pd.DataFrame, volume: pd.DataFrame
) -> list[np.ndarray]:
    """The columns of BASIC, in its order."""
    log_close = np.log(close)
    change = log_close.diff()
    volatility = change.rolling(20).std().clip(lower=0.001)
    market = change.mean(axis=1).fillna(0.0)
    of_market = market.iloc[1:].rolling(20).std().clip(lower=0.001).reindex(market.index)
    month = market.cumsum() - market.cumsum().shift(21).fillna(0.0)
    root = 21.0**0.5
    long = np.sqrt((change**2).rolling(252, min_periods=1).mean()).clip(lower=0.001)
    age = np.arange(len(close))
    momenta = []
    for span in (5, 21, 63, 252):
        since = log_close.shift(span).fillna(log_close.iloc[0])
        momenta.append((log_close - since).div(np.sqrt(np.clip(age, 1, span)), axis=0) / volatility)
    made = [
        change / volatility,
        np.log(opens / close.shift()) / volatility,
        np.log(close / opens) / volatility,
        np.log(high / low) / volatility,
        ((close - low) / (high - low)).fillna(0.5) - 0.5,
        np.log((volume + 1.0) / (volume.rolling(20).mean().shift() + 1.0)),
        np.log(volatility / long),
        *momenta,
    ]
    wide = np.ones((1, close.shape[1]))
    return [
        *(frame.to_numpy() for frame in made),
        (market / of_market).to_numpy()[:, None] * wide,
        (month / (of_market * root)).to_numpy()[:, None] * wide,
        (change.sub(market, axis=0) / volatility).to_numpy(),
        (momenta[1] - (1.0 / (volatility * root)).mul(month, axis=0)).to_numpy(),
    ]


if __name__ == "__main__":
    sys.exit(main())
