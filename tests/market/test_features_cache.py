"""The cache of features: equal to the bit, made anew when something is wrong with it, and bounded."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from hftraining.market import kept
from hftraining.market.features import cache, table
from hftraining.market.features.cache import kept_features
from hftraining.market.features.names import BASIC
from hftraining.market.features.rows import market_of, market_on
from hftraining.market.features.scaler import Scaled, Scaler
from hftraining.market.features.table import make_features
from tests.bars_of import make_bars


class Maker:
    """Makes features, and counts how often."""

    def __init__(self):
        self.count = 0

    def __call__(self, bars, columns, *rest):
        self.count += 1
        return make_features(bars, columns, *rest)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LEAST_VALUES", 1000)
    monkeypatch.setattr(kept, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "hftraining" / "features"


def the_same(ours, theirs):
    np.testing.assert_array_equal(ours.values_TSF, theirs.values_TSF)
    np.testing.assert_array_equal(ours.volatility_TS, theirs.volatility_TS)
    return ours.names == theirs.names and ours.values_TSF.dtype == theirs.values_TSF.dtype


def test_features_are_made_once_and_come_back_to_the_bit(folder):
    bars, make = make_bars(missing=0.05), Maker()
    first, second = (kept_features(bars, BASIC, make) for _ in range(2))
    assert make.count == 1 and the_same(second, first)
    assert sorted(path.suffix for path in folder.iterdir()) == [".bin", ".json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.iterdir()))
    with pytest.raises(ValueError, match="read-only"):
        second.values_TSF[:] = 0.0


def test_other_bars_other_columns_and_other_code_are_made_anew(folder, monkeypatch):
    bars, make = make_bars(), Maker()
    kept_features(bars, BASIC, make)
    bars.close_TS[-1, -1] *= 1.0001
    kept_features(bars, BASIC, make)
    kept_features(bars, BASIC[::-1], make)
    monkeypatch.setattr(cache, "code_of", lambda *files: "another")
    kept_features(bars, BASIC, make)
    assert make.count == 4


def test_another_numpy_another_numba_or_another_machine_makes_them_anew(folder, monkeypatch):
    bars, make = make_bars(), Maker()
    kept_features(bars, BASIC, make)
    for number, (where, name, value) in enumerate(
        [(np, "__version__", "0.1"), (cache.numba, "__version__", "0.1"), (kept.platform, "machine", lambda: "abacus")]
    ):
        monkeypatch.setattr(where, name, value)
        for _ in range(2):
            kept_features(bars, BASIC, make)
        assert make.count == number + 2


def test_a_folder_in_which_others_may_write_is_not_believed_until_it_is_closed(folder, caplog):
    bars, make = make_bars(), Maker()
    kept_features(bars, BASIC, make)
    folder.chmod(0o777)
    kept_features(bars, BASIC, make)
    assert make.count == 2 and "others may write it" in caplog.text
    kept_features(bars, BASIC, make)
    assert make.count == 2 and folder.stat().st_mode & 0o077 == 0


def test_no_more_than_half_of_the_free_disk_is_taken(folder, monkeypatch):
    bars, free = make_bars(), [0]
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[0]}))
    made = make_features(bars)
    size = made.values_TSF.nbytes + made.volatility_TS.nbytes + made.known_TS.nbytes + 8 * len(bars.sessions_T)
    for free[0], files in ((2 * size - 1, 0), (2 * size, 1)):
        kept_features(bars, BASIC, make_features)
        assert len(list(folder.glob("*.bin"))) == files


def test_few_values_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(cache, "LEAST_VALUES", 10**6)
    kept_features(make_bars(), BASIC, make_features)
    assert not folder.exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size - 4)


def of_other_features(path):
    about = path.with_suffix(".json")
    known = json.loads(about.read_text())
    known["facts"]["bars"] = "0" * 16
    reseal(about, known)
    about.chmod(0o600)


def reseal(about, known):
    """Facts that are whole in themselves."""
    known["seal"] = kept._seal({name: known[name] for name in ("facts", "said", "layout", "sha256")})
    about.write_text(json.dumps(known))
    about.chmod(0o600)


def damaged_facts(path):
    about = path.with_suffix(".json")
    about.write_text(about.read_text().replace('"values_TSF"', '"valued_TSF"'))
    about.chmod(0o600)


def others_may_write(path):
    path.chmod(0o666)


def a_link(path):
    moved = path.rename(path.with_suffix(".moved"))
    path.symlink_to(moved)


def gone(path):
    path.unlink()


def no_json(path):
    path.with_suffix(".json").write_text("{")
    path.with_suffix(".json").chmod(0o600)


def without_an_array(path):
    about = path.with_suffix(".json")
    known = json.loads(about.read_text())
    kind, shape = known["layout"].pop("market_T")
    os.truncate(path, path.stat().st_size - np.dtype(kind).itemsize * shape[0])
    known |= {"sha256": kept.digest(path, path.stat().st_size), "seen": kept._seen(path)}
    reseal(about, known)


def other_shapes(path):
    about = path.with_suffix(".json")
    known = json.loads(about.read_text())
    known["layout"]["values_TSF"][1].reverse()
    reseal(about, known)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (without_an_array, "has no features of these bars"),
        (other_shapes, "has no features of these bars"),
        (flip, "is damaged"),
        (cut, "has another size"),
        (of_other_features, "is of something else"),
        (damaged_facts, "has damaged facts beside it"),
        (others_may_write, "others may write it"),
        (a_link, "others may write it"),
        (gone, "cannot be read"),
        (no_json, "cannot be read"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_made_anew_and_said(folder, caplog, harm, said):
    bars, make = make_bars(), Maker()
    whole = kept_features(bars, BASIC, make_features)
    (data,) = folder.glob("*.bin")
    harm(data)
    assert the_same(kept_features(bars, BASIC, make), whole) and make.count == 1
    assert said in caplog.text and "made anew" in caplog.text
    assert the_same(kept_features(bars, BASIC, make), whole) and make.count == 1, "it is whole again"


def test_a_file_that_was_copied_is_read_once_to_be_sure(folder, monkeypatch):
    bars, make = make_bars(), Maker()
    kept_features(bars, BASIC, make)
    (data,) = folder.glob("*.bin")
    content = data.read_bytes()
    data.unlink()
    data.write_bytes(content)
    data.chmod(0o600)
    read = []
    monkeypatch.setattr(kept, "digest", lambda path, most, real=kept.digest: read.append(path) or real(path, most))
    for _ in range(2):
        kept_features(bars, BASIC, make)
    assert make.count == 1 and read == [data]


def test_what_was_used_longest_ago_makes_room(folder, monkeypatch):
    few, make = [make_bars(seed=seed) for seed in range(3)], Maker()
    kept_features(few[0], BASIC, make)
    (data,) = folder.glob("*.bin")
    monkeypatch.setattr(kept, "MOST_BYTES", 2 * data.stat().st_size)
    kept_features(few[1], BASIC, make)
    os.utime(data.with_suffix(".json"), ns=(10**18, 10**18))
    kept_features(few[2], BASIC, make)
    assert not data.exists() and len(list(folder.glob("*.bin"))) == len(list(folder.glob("*.json"))) == 2
    monkeypatch.setattr(kept, "MOST_BYTES", 1000)
    kept_features(few[0], BASIC, make)
    assert make.count == 4 and not list(folder.iterdir())


def test_what_was_read_last_stays_though_it_was_made_first(folder, monkeypatch):
    few, make = [make_bars(seed=seed) for seed in range(3)], Maker()
    kept_features(few[0], BASIC, make)
    (data,) = folder.glob("*.bin")
    monkeypatch.setattr(kept, "MOST_BYTES", 2 * data.stat().st_size)
    kept_features(few[1], BASIC, make)
    for number, about in enumerate(sorted(folder.glob("*.json"), key=lambda path: path.stem != data.stem)):
        os.utime(about, ns=(number, number))  # the first one is the oldest
    kept_features(few[0], BASIC, make)
    kept_features(few[2], BASIC, make)
    assert data.exists() and len(list(folder.glob("*.bin"))) == 2


def test_a_folder_that_cannot_be_written_is_done_without(folder, caplog):
    folder.parent.mkdir()
    folder.write_text("a file")
    assert the_same(kept_features(make_bars(), BASIC, make_features), make_features(make_bars()))
    assert "nothing was kept" in caplog.text


def test_a_folder_that_cannot_be_looked_into_is_done_without(folder, monkeypatch, caplog):
    bars, make = make_bars(), Maker()
    monkeypatch.setattr(kept, "user_cache_path", lambda name: folder / ("x" * 300))  # too long for any file system
    kept_features(bars, BASIC, make)
    assert make.count == 1 and "nothing was kept" in caplog.text


def poisoned(path, name, change):
    """The file with other values of one array, and facts that agree with it."""
    about = path.with_suffix(".json")
    known = json.loads(about.read_text())
    content = bytearray(path.read_bytes())
    values = kept.Room(content, known["layout"])[name]
    values[...] = change(values)
    path.write_bytes(content)
    known |= {"sha256": kept.digest(path, len(content)), "seen": kept._seen(path)}
    reseal(about, known)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("values_TSF", lambda x: np.nextafter(x, np.float32(9)), "has other values of return_1d than its bars"),
        ("values_TSF", lambda x: x[..., ::-1].copy(), "has other values of"),
        ("volatility_TS", lambda x: x * 1.001, "has other volatilities or known days"),
        ("known_TS", lambda x: ~x, "has other volatilities or known days"),
        ("market_T", lambda x: x + 1e-9, "has another return of the market"),
    ],
)
def test_values_that_the_code_does_not_make_are_found_though_their_facts_agree(folder, caplog, name, change, said):
    bars, make = make_bars(n_symbols=5), Maker()
    whole = kept_features(bars, BASIC, make_features)
    (data,) = folder.glob("*.bin")
    poisoned(data, name, change)
    assert the_same(kept_features(bars, BASIC, make), whole) and make.count == 1
    assert said in caplog.text and "made anew" in caplog.text


def test_ranks_that_are_not_in_the_order_of_what_they_rank_are_found(folder, caplog):
    bars, columns = make_bars(n_symbols=5), ["return_1d", "return_1d_rank", "gap_rank"]
    whole = kept_features(bars, columns, make_features)
    (data,) = folder.glob("*.bin")
    assert the_same(kept_features(bars, columns, make_features), whole) and not caplog.text
    for f, name in ((1, "return_1d_rank"), (2, "gap_rank")):
        poisoned(data, "values_TSF", lambda x, f=f: np.where(np.arange(3) == f, -x, x))
        assert the_same(kept_features(bars, columns, make_features), whole)
        assert f"has other values of {name}" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: -x, "has means or deviations that are none"),
        (lambda x: x * np.nan, "has means or deviations that are none"),
        (None, "has no means and deviations of these features"),
    ],
)
def test_a_scaler_that_is_none_is_said_and_made_anew(folder, caplog, change, said):
    bars = make_bars(n_symbols=5)
    kept_features(bars, BASIC, make_features)
    features = kept_features(bars, BASIC, make_features)
    whole = Scaler.fit(features, slice(0, 300))
    (data,) = (folder.parent / "scalers").glob("*.bin")
    if change:
        poisoned(data, "std_F", change)
    else:
        known = json.loads(data.with_suffix(".json").read_text())
        known["layout"] = {"mean_F": ["<f8", [2 * len(BASIC)]]}
        reseal(data.with_suffix(".json"), known)
    assert Scaler.fit(features, slice(0, 300)) == whole and f"{said}: made anew" in caplog.text


def test_a_large_table_is_made_in_its_file_and_is_the_same_to_the_bit(folder, monkeypatch, caplog):
    bars, columns = make_bars(n_symbols=7, missing=0.05), [*BASIC, "gap_rank"]
    monkeypatch.setattr(cache, "MOST_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(table, "GROUP_BYTES", 3 * 4 * len(bars.sessions_T) * len(columns))  # 3 symbols, 3 and 1
    for make in (Maker(), Maker()):
        made = kept_features(bars, columns, make)
        assert the_same(made, make_features(bars, columns)) and not made.values_TSF.flags.writeable
        np.testing.assert_array_equal(made.known_TS, np.isfinite(made.values_TSF).all(axis=2))
    assert make.count == 0 and not caplog.text
    monkeypatch.setattr(kept, "MOST_BYTES", 10)
    without = kept_features(bars, BASIC, make)
    assert make.count == 1 and the_same(without, make_features(bars, BASIC)) and "held in memory" in caplog.text


def test_a_large_table_that_may_not_be_read_back_is_held_in_memory(folder, monkeypatch, caplog):
    bars, columns = make_bars(), list(BASIC)
    monkeypatch.setattr(cache, "MOST_BYTES_IN_MEMORY", 0)
    elsewhere = folder.parents[1] / "elsewhere"
    elsewhere.mkdir()
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)
    assert the_same(kept_features(bars, columns, make_features), make_features(bars, columns))
    assert "others may write it" in caplog.text


def test_the_return_of_the_market_on_a_day_is_that_of_all_days():
    bars = make_bars(n_symbols=9, missing=0.3, seed=4)
    bars.close_TS[:30, 2] = np.nan
    bars.close_TS[50] = np.nan
    np.testing.assert_array_equal([market_on(bars, t) for t in range(len(bars.sessions_T))], market_of(bars))


def test_a_scaler_is_kept_with_its_training_days_and_only_for_features_as_they_are_kept(folder):
    bars = make_bars(missing=0.05)
    plain = kept_features(bars, BASIC, make_features)
    known = kept_features(bars, BASIC, make_features)
    for train in (slice(0, 200), slice(0, 300), slice(0, 200)):
        assert Scaler.fit(known, train) == Scaler.fit(plain, train)
    assert len(list((folder.parent / "scalers").glob("*.bin"))) == 2
    other = replace(known, values_TSF=known.values_TSF * 2)
    assert Scaler.fit(other, slice(0, 200)) != Scaler.fit(known, slice(0, 200)), "a copy is not what was kept"


def test_features_that_are_scaled_when_they_are_taken_are_those_that_are_scaled_before(folder):
    features = make_features(make_bars(missing=0.05))
    scaler = Scaler.fit(features, slice(0, 300))
    before_TSF, taken = scaler.scale(features.values_TSF), Scaled(features.values_TSF, scaler)
    rows_WL, symbol_W = np.array([[3, 4], [90, 91]]), np.array([[1], [2]])
    for at in ((rows_WL, symbol_W), features.known_TS, (slice(-5, None), 0)):
        np.testing.assert_array_equal(taken[at], before_TSF[at])
    np.testing.assert_array_equal(np.asarray(taken[20:50]), before_TSF[20:50])
    np.testing.assert_array_equal(taken[20:50][rows_WL[0], symbol_W[0]], before_TSF[20:50][rows_WL[0], symbol_W[0]])
    assert taken.shape == before_TSF.shape and len(taken) == len(before_TSF)
    np.testing.assert_array_equal(features.values_TSF, make_features(make_bars(missing=0.05)).values_TSF)
