"""Fixtures of several rooms: real bars, bars in files, and small runs that are made once."""

import atexit
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as train.py does, before torch is loaded

import pytest

from hftraining.core import secret
from hftraining.experiment.compose import composed
from hftraining.experiment.config import typed_config
from hftraining.runs.ledger import Ledger
from tests.bars_of import make_bars, write_csv_files
from tests.runs_of import FAST, QUICK, placed, run, trained

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# No run of a test, in whatever process, is counted in the ledger of the user who runs the tests.
STATE = Path(tempfile.mkdtemp(prefix="hftraining-state-"))
os.environ["XDG_STATE_HOME"] = str(STATE / "session")
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
NUMBERS = itertools.count()
# Files that begin: those that compile what the others load (one the reader of parquet, one the engine and a training),
# then those that take minutes in CI, so that no worker is left alone with one of them at the end.
FIRST = (
    "market/test_strange_data.py",
    "hfinference/test_forecast.py",
    "market/test_features_registry.py",
    "test_readme.py",
    "experiment/test_processes_of_a_run.py",
    "experiment/test_walk_forward.py",
    "crash/test_crash_points.py",
    "trading/test_oracles.py",
    "experiment/test_endings_of_processes.py",
    "experiment/test_replay.py",
    "experiment/test_finetuning.py",
    "sweep/test_command.py",
    "experiment/test_gallery.py",
    "hfinference/live/test_kills.py",
    "test_specification.py",
    "test_train_command.py",
)
SHARED = list[Path]()  # outputs of runs that are made once, and only read


@pytest.fixture(autouse=True)
def state(monkeypatch) -> Path:
    """The user's state folder of one test, so that no other test's runs are counted."""
    home = STATE / str(next(NUMBERS))
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home / "hftraining"


@pytest.fixture(autouse=True)
def secrets() -> Iterator[None]:
    """What one test makes the process mask (a key such as PKANOTHERKEY, and its parts) stays in the lines of others."""
    known = secret._secrets, secret._users, secret._parts
    before = [set(values) for values in known]
    yield
    for values, kept in zip(known, before, strict=True):
        values.intersection_update(kept)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared real bars are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Three random walks of 500 days in files."""
    return write_csv_files(make_bars(n_sessions=500, seed=3), tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="session")
def reference(folder, tmp_path_factory) -> dict:
    """A quick run of that folder, to read and not to write into: result.json as a dict, and "folder"."""
    result = run(folder, tmp_path_factory.mktemp("reference"))
    SHARED.append(Path(result["folder"]).parents[2])
    return result


@pytest.fixture(scope="session")
def base(folder, tmp_path_factory) -> Path:
    """The folder of a run to fine-tune, to read and not to write into."""
    output = tmp_path_factory.mktemp("base")
    settings = ["stocks=folder", *QUICK, *FAST, f"stocks.path={folder}", *placed(output)]
    SHARED.append(output)
    return Path(trained(typed_config(composed(settings)))["folder"])


@pytest.fixture(autouse=True)
def shared_runs_are_not_written_into(request) -> Iterator[None]:
    """A file or a row of the ledger beside a shared run would change what later tests of the same process find."""
    wanted = {"base", "reference"} & {*request.fixturenames}
    for name in wanted:
        request.getfixturevalue(name)
    before = {place: written(place) for place in SHARED if wanted}
    yield
    assert {place: written(place) for place in before} == before


def written(place: Path) -> tuple[int, list[Path]]:
    """The rows of the ledger of some outputs, and all files but those of SQLite."""
    files = sorted(path for path in place.rglob("*") if not path.name.startswith("ledger."))
    return len(Ledger(place / "ledger.sqlite").entries()), files


@pytest.fixture(scope="session")
def outputs(folder, tmp_path_factory) -> Path:
    """Outputs with three seeds of one config, three of another, and a repetition of the first; to read only."""
    outputs = tmp_path_factory.mktemp("compare") / "outputs"
    for overrides in ((), ("training.learning_rate=0.02", "name=fast")):
        for seed in (1, 2, 3):
            run(folder, outputs, f"seed={seed}", *overrides)
    run(folder, outputs)
    return outputs


def pytest_collection_modifyitems(items):
    """Begin with FIRST, then the files with most tests; skip what is marked `long` unless HFTRAINING_LONG is set."""
    tests = Path(__file__).parent
    first = {tests / name: place for place, name in enumerate(FIRST)}
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (first.get(item.path, len(first)), -sizes[item.path], item.path))
    if os.environ.get("HFTRAINING_LONG"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: HFTRAINING_LONG=1 runs it"))
