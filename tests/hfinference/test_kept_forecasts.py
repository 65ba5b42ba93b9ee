"""The cache of forecasts: equal to the fresh ones, never of other bars, another model or what others have written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hfinference import forecast, kept_forecasts
from hfinference.__main__ import main
from hfinference.forecast import forecast_next
from hftraining.market import kept
from tests.bars_of import make_bars
from tests.runs_of import run_of_kind

TILT = ["portfolio=tilt", "profit_tracker=default"]
DAYS = [str(day) for day in make_bars(n_sessions=500, seed=3).sessions_T]
NUMBERS = ["score", "weight", "order", "q50_1", "q50_5"]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_forecasts, "LEAST_FORECASTS", 1)
    monkeypatch.setattr(kept, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "hftraining" / "forecasts"


@pytest.fixture
def made(monkeypatch):
    """How many sessions were forecast, call by call."""
    counts, real = [], forecast.forecast_of
    monkeypatch.setattr(
        forecast, "forecast_of", lambda *given: counts.append(given[3].stop - given[3].start) or real(*given)
    )
    return counts


def table(run, day, **named):
    return forecast_next(run, day, words=[*TILT, *named.pop("words", [])], **named).table.sort_index()[NUMBERS]


def the_same(ours, theirs):
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0.0, atol=1e-4)  # orders: of some 200 shares
    pd.testing.assert_frame_equal(ours.drop(columns="order"), theirs.drop(columns="order"), rtol=0.0, atol=1e-6)


def edited(path: Path, change) -> Path:
    rows = pd.read_csv(path)
    change(rows)
    rows.to_csv(path, index=False)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "bars"))


def test_on_the_next_day_only_the_days_since_are_forecast_and_the_table_is_the_fresh_one(base, cached, made):
    table(base, DAYS[490])
    first = made.copy()
    later = table(base, DAYS[493])
    assert made[len(first) :] == [4] and len(first) == 1 and first[0] > 40  # the last that is kept, and three new ones
    the_same(later, table(base, DAYS[493], keep=False))
    assert made[-1] == first[0] + 3
    again, earlier = table(base, DAYS[493]), table(base, DAYS[480])
    assert made[-2:] == [1, 1]
    the_same(again, later)
    the_same(earlier, table(base, DAYS[480], keep=False))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (cached, *cached.iterdir()))
    assert len(list(cached.glob("*.bin"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "mlp", "lstm", "patchtst", "ridge", "lightgbm"])
def test_every_kind_of_model_forecasts_from_the_cache_as_without_it(folder, tmp_path, cached, made, kind):
    if kind == "lightgbm":
        pytest.importorskip("lightgbm")
    run = Path(run_of_kind(folder, tmp_path, kind, "evidence.baselines=[]")["folder"])
    for day in DAYS[495:]:
        the_same(table(run, day), table(run, day, keep=False))
    assert made[2::2] == [2, 2, 2, 2]


@pytest.mark.slow
def test_a_portfolio_that_looks_back_further_is_forecast_anew_and_a_shorter_one_is_not(base, cached, made):
    table(base, DAYS[490], start=DAYS[470])
    table(base, DAYS[491], start=DAYS[450])
    table(base, DAYS[492], start=DAYS[480])
    table(base, DAYS[493], start=DAYS[452])
    table(base, DAYS[499], start=DAYS[498])  # nothing that is kept: what was is no longer
    assert made == [21, 42, 2, 2, 2]
    table(base, DAYS[499], start=DAYS[452])
    assert made[-1] == 48


@pytest.mark.slow
def test_no_more_sessions_are_kept_than_may_be(base, cached, made, monkeypatch):
    monkeypatch.setattr(kept_forecasts, "MOST_SESSIONS", 30)
    table(base, DAYS[490], start=DAYS[470])
    fresh = table(base, DAYS[499], start=DAYS[485], keep=False)
    the_same(table(base, DAYS[499], start=DAYS[485]), fresh)
    said = json.loads(next(cached.glob("*.json")).read_text())["said"]
    assert (said["first"], said["last"]) == (DAYS[470], DAYS[499])
    monkeypatch.setattr(kept_forecasts, "MOST_SESSIONS", 10)
    table(base, DAYS[495], start=DAYS[485])
    assert json.loads(next(cached.glob("*.json")).read_text())["said"]["first"] == DAYS[470]


@pytest.mark.slow
def test_history_that_was_corrected_takes_nothing_and_the_table_is_that_of_the_new_bars(base, cached, made, copied):
    words = [f"stocks.path={copied}"]
    table(base, DAYS[490], words=words)

    def corrected(rows):
        rows.loc[470, "volume"] *= 2

    edited(copied / "S1.csv", corrected)
    found = table(base, DAYS[491], words=words)
    assert made[-1] == made[0] + 1
    the_same(found, table(base, DAYS[491], words=words, keep=False))


@pytest.mark.slow
def test_later_bars_and_those_before_what_a_forecast_depends_on_may_change(base, cached, made, copied):
    words = [f"stocks.path={copied}"]
    table(base, DAYS[490], words=words)

    def corrected(rows):
        rows.loc[[3, 499], "volume"] *= 2

    edited(copied / "S1.csv", corrected)
    found = table(base, DAYS[491], words=words)
    assert made[-1] == 2
    the_same(found, table(base, DAYS[491], words=words, keep=False))


def test_a_split_of_the_whole_history_takes_nothing(base, cached, made, copied):
    words = [f"stocks.path={copied}"]
    table(base, DAYS[490], words=words)

    def split(rows):
        rows[["open", "high", "low", "close"]] /= 2

    edited(copied / "S0.csv", split)
    table(base, DAYS[491], words=words)
    assert made[-1] == made[0] + 1


@pytest.mark.slow
def test_another_model_or_other_stocks_take_nothing(base, cached, made, folder, tmp_path):
    table(base, DAYS[490])
    other = Path(shutil.copytree(base, tmp_path / "other"))
    config = json.loads((other / "model" / "config.json").read_text())
    (other / "model" / "config.json").write_text(json.dumps(config))  # the same model, in another file
    table(other, DAYS[491])
    assert made[-1] == made[0] + 1
    table(base, DAYS[491], stocks=["S0", "S1"])
    assert made[-1] == made[0] + 1 and len(list(cached.glob("*.bin"))) == 3


@pytest.mark.slow
def test_a_kept_forecast_that_the_model_does_not_make_is_said_and_made_anew(base, cached, made, caplog):
    table(base, DAYS[490])
    place = next(cached.glob("*.bin"))
    values = np.fromfile(place, "<f8")
    values[-1] += 0.5  # of the head of the last session
    values.tofile(place)
    about = place.with_suffix(".json")
    known = json.loads(about.read_text())
    known |= {"sha256": kept.digest(place, values.nbytes), "seen": kept._seen(place)}
    known["seal"] = kept._seal({name: known[name] for name in ("facts", "said", "layout", "sha256")})
    about.write_text(json.dumps(known))
    found = table(base, DAYS[491])
    assert "has another forecast of its last day than the model: made anew" in caplog.text
    assert made[-2:] == [2, made[0] + 1]
    the_same(found, table(base, DAYS[491], keep=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        {},
        {"begin": 3, "first": "2016-01-04", "last": "2016-02-04", "bars": "0"},
        {"begin": "2016-01-04", "first": "2015-01-04", "last": "2016-02-04", "bars": "0"},
        {"begin": "2015-01-05", "first": "2016-01-04", "last": "NaT", "bars": "0"},
        {"begin": "2015-01-05", "first": "2016-01-04", "last": "never", "bars": "0"},
        {"begin": "2015-01-05", "first": "2016-01-04", "last": "2016-02-04", "bars": 7},
        [1, 2],
        None,
    ],
)
def test_facts_that_are_none_are_said_and_made_anew(base, cached, made, caplog, said):
    table(base, DAYS[490])
    about = next(cached.glob("*.json"))
    known = json.loads(about.read_text()) | {"said": said}
    known["seal"] = kept._seal({name: known[name] for name in ("facts", "said", "layout", "sha256")})
    about.write_text(json.dumps(known))
    table(base, DAYS[491])
    assert "made anew" in caplog.text and made[-1] == made[0] + 1


@pytest.mark.slow
def test_few_forecasts_are_made_each_time_and_anew_does_without(base, cached, made, monkeypatch, capsys):
    assert main(["forecast", str(base), "--anew", *TILT]) == 0
    monkeypatch.setattr(kept_forecasts, "LEAST_FORECASTS", 10_000)
    table(base, DAYS[490])
    assert not cached.exists() and len(made) == 2
    capsys.readouterr()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_said_and_done_without(base, cached, made, caplog):
    cached.parent.parent.mkdir(parents=True)
    cached.parent.write_text("a file in its place")
    the_same(table(base, DAYS[490]), table(base, DAYS[490], keep=False))
    assert "nothing was kept" in caplog.text
