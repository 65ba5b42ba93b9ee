"""The cache of bars: equal to the bit, never those of files that have changed, never those that others have written."""

import json
import os
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hftraining.core.bars import ARRAYS
from hftraining.market import kept, kept_bars, prices
from tests.bars_of import load, made_bars, make_bars


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_bars, "LEAST_BYTES", 1)
    monkeypatch.setattr(kept, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "hftraining" / "bars"


@pytest.fixture
def read(monkeypatch):
    """How often files were read."""
    times = []
    monkeypatch.setattr(prices, "_of_files", lambda config, real=prices._of_files: times.append(1) or real(config))
    return times


def age(folder):
    """Wait until no file was touched within the coarsest clock: their times of change cannot be set."""
    newest = max(path.stat().st_ctime_ns for path in folder.iterdir())
    time.sleep(max(0, newest + kept_bars.COARSEST_CLOCK - time.time_ns()) / 1e9 + 0.01)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files that are old enough to be kept."""
    monkeypatch.setattr(kept_bars, "COARSEST_CLOCK", 10**8)
    place = tmp_path / "bars"
    place.mkdir()
    for symbol, rows in made_bars(("AAA", "BBB", "CCC"), days=90).groupby("symbol"):
        gap = rows.index[20:28] if symbol == "BBB" else []
        rows.drop(columns="symbol").drop(index=gap).to_parquet(place / f"{symbol}.parquet", index=False)
    age(place)
    return place


def the_same(ours, theirs):
    for name in ("sessions_T", *ARRAYS):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    fields = ("symbols_S", "source", "warnings", "snapshot")
    return all(getattr(ours, name) == getattr(theirs, name) for name in fields)


def test_bars_are_read_once_and_come_back_to_the_bit_with_their_warnings(cached, read, folder):
    first, second = load(folder), load(folder)
    assert len(read) == 1 and the_same(second, first) and second.warnings and second.events.empty
    assert all(path.stat().st_mode & 0o077 == 0 for path in (cached, *cached.iterdir()))
    with pytest.raises(ValueError, match="read-only"):
        second.close_TS[:] = 0.0


def test_their_fingerprint_is_known_and_no_other_bars_take_it_over(cached, folder):
    first, second = load(folder), load(folder)
    assert second.known_fingerprint == first.fingerprint() == second.fingerprint()
    object.__setattr__(second, "known_fingerprint", "told")
    assert second.fingerprint() == "told"
    few = second.of(["AAA", "CCC"])
    assert few.known_fingerprint is None and few.fingerprint() == first.of(["AAA", "CCC"]).fingerprint()
    assert second.rows(slice(0, 50)).fingerprint() == first.rows(slice(0, 50)).fingerprint()


def test_another_file_setting_code_or_day_is_read_anew(cached, read, folder, monkeypatch):
    def rewrite(path, change):
        stat = path.stat()
        change(pd.read_parquet(path)).to_parquet(path, index=False)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as tools do that keep times
        age(folder)

    load(folder)
    load(folder, start="2015-01-12")
    assert len(read) == 2
    rewrite(folder / "AAA.parquet", lambda rows: rows.assign(close=rows["close"] * 1.0001))
    changed = load(folder)
    assert len(read) == 3 and changed.fingerprint() == load(folder, cache=False).fingerprint()
    (folder / "BBB.parquet").rename(folder / "DDD.parquet")
    age(folder)
    assert load(folder).symbols_S == ("AAA", "CCC", "DDD")
    monkeypatch.setattr(kept_bars, "code_of", lambda *files: "another")
    load(folder)
    assert len(read) == 6
    for hours in (1, 25):  # a row of tomorrow is left out today
        now = time.time_ns() + hours * 3600 * 10**9
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        load(folder, bad_rows="drop")
    assert len(read) == 8


def test_a_file_that_was_just_written_is_not_kept_since_the_same_tick_may_write_it_again(cached, read, folder):
    (folder / "AAA.parquet").touch()
    load(folder)
    assert not cached.exists() or not list(cached.iterdir())
    age(folder)
    for _ in range(2):
        load(folder)
    assert len(read) == 2 and len(list(cached.glob("*.bin"))) == 1


def test_a_file_that_changes_while_it_is_read_is_not_kept(cached, folder, monkeypatch):
    def slow(config, real=prices._of_files):
        made = real(config)
        (folder / "AAA.parquet").touch()
        return made

    monkeypatch.setattr(prices, "_of_files", slow)
    load(folder)
    assert not cached.exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size - 8)


def others_may_write(path):
    path.chmod(0o666)


def others_may_write_the_folder(path):
    path.parent.chmod(0o777)


def a_link(path):
    path.symlink_to(path.rename(path.with_suffix(".moved")))


def damaged_symbols(path):
    about = path.with_suffix(".json")
    about.write_text(about.read_text().replace('"AAA"', '"AAB"'))
    about.chmod(0o600)


def of_other_files(path):
    about = path.with_suffix(".json")
    known = json.loads(about.read_text())
    known["facts"]["files"] = "0" * 64
    known["seal"] = kept._seal({name: known[name] for name in ("facts", "said", "layout", "sha256")})
    about.write_text(json.dumps(known))
    about.chmod(0o600)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "is damaged"),
        (cut, "has another size"),
        (others_may_write, "others may write it"),
        (others_may_write_the_folder, "others may write it"),
        (a_link, "others may write it"),
        (damaged_symbols, "has damaged facts"),
        (of_other_files, "is of something else"),
    ],
)
@pytest.mark.slow
def test_a_file_that_is_not_as_it_was_written_is_read_anew_and_said(cached, read, folder, caplog, harm, said):
    whole = load(folder)
    (data,) = cached.glob("*.bin")
    harm(data)
    assert the_same(load(folder), whole) and len(read) == 2
    assert said in caplog.text and "made anew" in caplog.text
    assert the_same(load(folder), whole) and len(read) == 2, "it is whole again"


SEALED = ("facts", "said", "layout", "sha256")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["<f8", "<i8", "|b1", "|O", "CCC"]),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=4), some, max_size=3),
    max_leaves=8,
)
PLACES = [
    (),
    *((name,) for name in (*SEALED, "seal", "seen")),
    *(("said", n) for n in ("symbols", "source", "warnings")),
]
PLACES += [
    ("said", "fingerprint"),
    ("layout", "sessions_T"),
    ("layout", "close_TS"),
    ("layout", "close_TS", 1),
    ("new",),
]


def put(value, place, new):
    """The JSON value with another one at a place; None: with nothing there."""
    if not place:
        return new
    other = value.copy()
    if new is None and type(other) is dict:
        other.pop(place[0], None)
    else:
        other[place[0]] = put(value.get(place[0]) if type(value) is dict else value[place[0]], place[1:], new)
    return other


@pytest.fixture
def written(cached, folder):
    """The facts beside the bars in the cache, the bars, and the file."""
    whole = load(folder)
    (about,) = cached.glob("*.json")
    return json.loads(about.read_text()), whole, about


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.sampled_from(PLACES), new=JSON, is_sealed=st.booleans())
@example(place=("layout",), new={}, is_sealed=True)
@example(place=("layout", "close_TS", 1), new=[10**6, 10**7], is_sealed=True)
@example(place=("layout", "close_TS", 1), new=[0, 3], is_sealed=True)
@example(place=("said", "symbols"), new=[["AAA"], "BBB", "CCC"], is_sealed=True)
@example(place=("said", "symbols"), new=["AAA", "BBB"], is_sealed=True)
@example(place=("said",), new=None, is_sealed=True)
@example(place=("facts",), new=None, is_sealed=True)
def test_facts_of_any_shape_beside_the_bars_never_change_them_nor_end_the_run(written, folder, place, new, is_sealed):
    known, whole, about = written
    changed = put(known, place, new)
    if is_sealed and type(changed) is dict and place != ("seal",):
        changed = changed | {"seal": kept._seal({name: changed.get(name) for name in SEALED})}
    about.write_text(json.dumps(changed))
    about.chmod(0o600)
    found = load(folder)
    np.testing.assert_array_equal(found.close_TS, whole.close_TS)
    np.testing.assert_array_equal(found.sessions_T, whole.sessions_T)
    assert found.symbols_S == whole.symbols_S


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"facts": 1, "facts": 2}', "[" * 10**5, '{"said": NaN}'])
@pytest.mark.slow
def test_a_text_that_is_no_json_object_is_said_and_made_anew(written, folder, read, caplog, text):
    _, whole, about = written
    about.write_text(text)
    assert the_same(load(folder), whole) and "made anew" in caplog.text and len(read) == 1


@pytest.mark.parametrize("day", [-(2**63), -(2**40), 10**9])
def test_days_that_no_bar_has_are_said_and_made_anew(written, folder, caplog, day):
    known, whole, about = written
    data = about.with_suffix(".bin")
    content = np.fromfile(data, "<i8")
    n_days = len(whole.sessions_T)
    assert (content[-n_days:] == whole.sessions_T.astype("datetime64[D]").view("<i8")).all()
    content[-1] = day
    content.tofile(data)
    known |= {"sha256": kept.digest(data, content.nbytes), "seen": kept._seen(data)}
    about.write_text(json.dumps(known | {"seal": kept._seal({name: known[name] for name in SEALED})}))
    assert the_same(load(folder), whole) and "has other days than rising ones: made anew" in caplog.text


def test_a_file_of_another_user_is_not_used(cached, read, folder, monkeypatch, caplog):
    load(folder)
    monkeypatch.setattr(os, "getuid", lambda real=os.getuid: real() + 1)
    load(folder)
    assert len(read) == 2 and "belongs to another user" in caplog.text


def test_few_bytes_and_a_setting_do_without_the_cache(cached, read, folder, monkeypatch):
    load(folder, cache=False)
    monkeypatch.setattr(kept_bars, "LEAST_BYTES", 10**9)
    load(folder)
    assert not cached.exists() and len(read) == 2


def test_a_run_in_another_folder_has_other_files_under_the_same_path(cached, read, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_bars, "COARSEST_CLOCK", 0)
    for n in range(2):
        (tmp_path / str(n) / "bars").mkdir(parents=True)
        bars = make_bars(seed=n)
        columns = {name: getattr(bars, f"{name}_TS")[:, 0] for name in ("open", "high", "low", "close", "volume")}
        pd.DataFrame({"date": bars.sessions_T, **columns}).to_parquet(tmp_path / str(n) / "bars" / "A.parquet")
        monkeypatch.chdir(tmp_path / str(n))
        assert load("bars").close_TS[-1, 0] == bars.close_TS[-1, 0]
    assert len(read) == 2
