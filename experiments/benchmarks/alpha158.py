"""The set alpha158 beside qlib: CPU time, peak memory, and the values column by column.

    python experiments/benchmarks/alpha158.py --peer-python PATH [--path BARS] [--runs 5] [--peer-runs 3]

PATH is an interpreter with qlib (`python -m venv peer && peer/bin/pip install pyqlib==0.9.7`), so that nothing of qlib
enters our environment. Bars are random walks of 500 stocks on 2,500 days, or with --path those of files.

Like for like: both have the same bars, rounded to float32, each in its own store (qlib's binary folder, a .npy file),
and give all 157 columns of all stocks and days as float32. Every run is a process of its own, one thread: CPU time of
the call that makes the columns, after a small one that compiles; peak memory of the whole process, with everything that
it imports. They take turns, so that a busy machine slows them alike. Ours runs in two ways: `memory` holds the whole
table (its values alone take 785 MB), `file` is what a run does with a table of this size: kept_features makes it in a
file of the cache, some stocks at a time, and gives it back as a map of that file. Its time includes the checksum.

Values: of each column the cells that are further apart than 1e-5 of qlib's value, however near zero that is, and the
largest difference against the larger of qlib's value and the column's median size. docs/features.md says why.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))

# After the line above.
# ruff: noqa: E402
from hftraining.core.bars import ARRAYS, Bars
from hftraining.market.config import StocksConfig
from hftraining.market.features.cache import kept_features
from hftraining.market.features.names import ALPHA158
from hftraining.market.features.table import make_features
from hftraining.market.prices import load_bars

TOLERANCE = 1e-5
PEER = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd, qlib
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import D
folder, out, sessions, symbols = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
qlib.init(provider_uri=folder, region="us", kernels=1, logging_level=40)
pairs = [pair for pair in zip(*Alpha158DL.get_feature_config()) if pair[1] != "VWAP0"]
fields = [field for field, name in pairs]
D.features(["S0000"], fields[:20])
start = time.process_time()
table = D.features(D.instruments("all"), fields)
cpu = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if out != "-":
    values = np.full((symbols, sessions, len(fields)), np.nan, np.float32)
    days = pd.DatetimeIndex(D.calendar())
    for symbol, own in table.groupby(level=0):
        values[int(symbol[1:]), days.get_indexer(own.index.get_level_values(1))] = own.to_numpy(np.float32)
    np.save(out, values)
print(json.dumps({"cpu": cpu, "peak": peak, "names": [name for field, name in pairs], "version": qlib.__version__}))
"""


def main() -> int:
    """Make the bars, run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="an interpreter with qlib")
    parser.add_argument("--path", help="a folder or file of daily bars, instead of random walks")
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-runs", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "BARS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(ours(*args.child)))
        return 0
    if not has_qlib(args.peer_python):
        print(
            "alpha158: --peer-python must name an interpreter that has qlib: python -m venv peer, then "
            "peer/bin/pip install pyqlib==0.9.7, then --peer-python peer/bin/python",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))
    return 0


def has_qlib(python: Path | None) -> bool:
    """Whether an interpreter runs and has qlib."""
    if python is None or not python.is_file():
        return False
    return subprocess.run([python, "-c", "import qlib"], capture_output=True).returncode == 0


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Run both in turns and print what they took and where their values differ."""
    bars = (
        load_bars(StocksConfig(source="files", path=args.path, bad_rows="drop"))
        if args.path
        else walks(args.sessions, args.symbols)
    )
    arrays_ATS = np.stack([getattr(bars, name) for name in ARRAYS]).astype(np.float32)
    dump(arrays_ATS, bars.sessions_T, folder / "qlib")
    np.save(folder / "bars.npy", arrays_ATS)
    sizes = [str(size) for size in arrays_ATS.shape[1:]]
    runs: dict[str, list[dict]] = {"memory": [], "file": [], "qlib": []}
    for number in range(max(args.runs, args.peer_runs)):
        if number < args.peer_runs:
            out = str(folder / "peer.npy") if number == 0 else "-"
            runs["qlib"].append(child([args.peer_python, "-c", PEER, folder / "qlib", out, *sizes]))
        if number < args.runs:
            for way in ("memory", "file"):
                shutil.rmtree(folder / "cache", ignore_errors=True)
                command = [sys.executable, HERE, "--child", way, folder / "bars.npy"]
                runs[way].append(child(command, XDG_CACHE_HOME=str(folder / "cache")))
    print(f"{sizes[1]} stocks on {sizes[0]} days, {len(ALPHA158)} columns; qlib {runs['qlib'][0]['version']}")
    of_peer = {what: median(run[what] for run in runs["qlib"]) for what in ("cpu", "peak")}
    for way, found in runs.items():
        cpu, peak = (median(run[what] for run in found) for what in ("cpu", "peak"))
        spread = f"{min(run['cpu'] for run in found):.2f} to {max(run['cpu'] for run in found):.2f}"
        print(
            f"{way:8} {len(found)} runs: CPU {cpu:6.2f} s ({spread}), {cpu / of_peer['cpu']:.3f} of qlib's; "
            f"peak {peak / 1024:6.0f} MiB, {peak / of_peer['peak']:.2f} of qlib's"
        )
    compare(folder, runs["qlib"][0]["names"])


def child(command: list, **variables: str) -> dict:
    """The JSON that a process prints last, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | threads | variables)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(way: str, path: str) -> dict:
    """Make the columns in this process."""
    import resource
    import time

    arrays = [np.array(array_TS, np.float64) for array_TS in np.load(path, mmap_mode="r")]
    n_sessions, n_symbols = arrays[0].shape
    days = np.arange(n_sessions).astype("datetime64[D]")
    bars = Bars(tuple(f"S{s:04}" for s in range(n_symbols)), days, *arrays)
    make_features(bars.of(bars.symbols_S[:2]), ALPHA158)
    start = time.process_time()
    if way == "memory":
        features = make_features(bars, ALPHA158)
    else:
        features = kept_features(bars, ALPHA158, make_features)
    cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "file":
        assert features.kept_as is not None, "it was made in memory"
        if not (table := Path(path).with_name("ours.npy")).exists():
            np.save(table, features.values_TSF)
    return {"cpu": cpu, "peak": peak}


def compare(folder: Path, names: list[str]) -> None:
    """Print how far the values are apart, and which columns are the furthest."""
    peer_STF = np.load(folder / "peer.npy", mmap_mode="r")
    ours_STF = np.load(folder / "ours.npy", mmap_mode="r").swapaxes(0, 1)
    assert list(ALPHA158) == names, "qlib has other columns"
    # Our table hides all columns of a day on which one is unknown; these days are counted apart.
    known_ST = np.isfinite(ours_STF).all(axis=2)
    hidden = sum(
        int((np.isfinite(other_TF).any(axis=1) & ~own_T).sum())
        for other_TF, own_T in zip(peer_STF, known_ST, strict=True)
    )
    print(f"values: {known_ST.sum():,} days of stocks compared, {hidden:,} of which we have not all columns")
    rows, undefined = [], []
    for f, name in enumerate(names):
        own_N, other_N = (
            np.asarray(values_STF[:, :, f])[known_ST].astype(float) for values_STF in (ours_STF, peer_STF)
        )
        defined_N = np.isfinite(other_N)
        undefined += [f"{name} {(~defined_N).sum():,}"] if not defined_N.all() else []
        own_N, other_N = own_N[defined_N], np.abs(other_N[defined_N])
        apart_N = np.abs(own_N - np.asarray(peer_STF[:, :, f])[known_ST][defined_N].astype(float))
        size_N = np.maximum(other_N, np.median(other_N))
        rows.append((float((apart_N / size_N).max()), int((apart_N > TOLERANCE * other_N).sum()), name))
    print(f"columns with cells beyond {TOLERANCE:g} relative: {sum(count > 0 for _, count, _ in rows)} of {len(names)}")
    print("  largest |difference| / max(|qlib's|, median of the column), and cells beyond 1e-5 of qlib's value itself:")
    for far, count, name in sorted(rows, reverse=True)[:16]:
        print(f"  {name:8} {far:8.1e} {count:8,}")
    print(f"cells that qlib leaves undefined and we do not: {', '.join(undefined) or 'none'}")


def walks(n_sessions: int, n_symbols: int) -> Bars:
    """Random walks of 2 % a day with ranges, gaps and whole numbers of shares."""
    rng = np.random.default_rng(0)
    shape = (n_sessions, n_symbols)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0002, 0.02, shape), axis=0))
    opens = np.vstack([np.full((1, n_symbols), 50.0), close[:-1]]) * np.exp(rng.normal(0, 0.005, shape))
    high = np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.005, shape)))
    low = np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.005, shape)))
    volume = np.round(np.exp(rng.normal(14, 0.4, shape)))
    days = np.busday_offset(np.datetime64("2010-01-04"), np.arange(n_sessions), roll="forward")
    return Bars(tuple(f"S{s:04}" for s in range(n_symbols)), days, opens, high, low, close, volume)


def dump(arrays_ATS: np.ndarray, sessions_T: np.ndarray, folder: Path) -> None:
    """The bars in qlib's store: a calendar, the first and last day of each stock, and a file a stock and field."""
    days = sessions_T.astype("datetime64[D]").astype(str)
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(days) + "\n")
    lines = []
    for s in range(arrays_ATS.shape[2]):
        rows = np.flatnonzero(np.isfinite(arrays_ATS[3, :, s]))
        first, last = int(rows[0]), int(rows[-1])
        lines.append(f"S{s:04}\t{days[first]}\t{days[last]}\n")
        own = folder / "features" / f"s{s:04}"
        own.mkdir()
        for name, array_TS in zip(ARRAYS, arrays_ATS, strict=True):
            cells = np.concatenate([[first], array_TS[first : last + 1, s]]).astype("<f")
            cells.tofile(own / f"{name.removesuffix('_TS')}.day.bin")
    (folder / "instruments" / "all.txt").write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())
