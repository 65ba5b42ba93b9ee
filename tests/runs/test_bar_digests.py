"""Digests of a run's bars: enough to say which symbols and days changed."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.runs.bar_digests import DataDelta, data_delta, digest_bars, read_digests, write_digests
from hftraining.runs.record import RecordError
from tests.bars_of import make_bars


def changed_bars(bars, name, t, s, change):
    array_TS = getattr(bars, name).copy()
    array_TS[t, s] = change(array_TS[t, s])
    return replace(bars, **{name: array_TS})


@pytest.mark.parametrize("name", ["open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"])
def test_a_change_in_the_last_bit_of_one_value_is_named_by_symbol_and_day(name):
    bars = make_bars(300, 3, missing=0.05)
    t = int(np.flatnonzero(np.isfinite(bars.close_TS[:, 1]))[100])
    other = changed_bars(bars, name, t, 1, lambda value: np.nextafter(value, np.inf))
    delta = data_delta(digest_bars(bars), digest_bars(other))
    assert delta == DataDelta(changed={"S1": [str(bars.sessions_T[t])]})
    assert delta.lines() == [f"S1: {bars.sessions_T[t]} changed"]


def test_equal_bars_have_no_delta_in_any_order_of_symbols():
    bars = make_bars(100, 3, missing=0.1)
    turned = replace(
        bars,
        symbols_S=bars.symbols_S[::-1],
        **{n: getattr(bars, n)[:, ::-1] for n in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")},
    )
    assert not data_delta(digest_bars(bars), digest_bars(bars))
    assert not data_delta(digest_bars(bars), digest_bars(turned))


def test_added_days_and_symbols_are_listed_apart_from_changed_days():
    bars = make_bars(100, 3)
    shorter = replace(bars.rows(slice(0, 90)), symbols_S=("S0", "S1", "XX"))
    delta = data_delta(digest_bars(bars), digest_bars(shorter))
    assert (delta.symbols_only_first, delta.symbols_only_second) == (("S2",), ("XX",))
    assert {s: len(days) for s, days in delta.only_first.items()} == {"S0": 10, "S1": 10}
    assert not delta.changed and not delta.only_second
    assert f"S0: 10 days from {bars.sessions_T[90]} to {bars.sessions_T[99]} only in the first" in delta.lines()


def test_a_bar_that_vanished_is_a_day_of_one_run_only():
    bars = make_bars(100, 2)
    gone = bars
    for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"):
        gone = changed_bars(gone, name, 50, 0, lambda value: np.nan)
    assert data_delta(digest_bars(bars), digest_bars(gone)).only_first == {"S0": [str(bars.sessions_T[50])]}


def test_swapped_values_are_seen():
    bars = make_bars(50, 2)
    assert data_delta(digest_bars(bars), digest_bars(replace(bars, open_TS=bars.close_TS, close_TS=bars.open_TS)))


def test_digests_are_read_back_from_the_folder_and_shared_between_runs(tmp_path):
    bars = make_bars(100, 2)
    shared = tmp_path / ".bars" / "f00d.npz"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_digests(digest_bars(bars), tmp_path / name, shared)
    assert (tmp_path / "one" / "bars.npz").stat().st_ino == (tmp_path / "two" / "bars.npz").stat().st_ino
    found = read_digests(tmp_path / "two")
    assert not data_delta(digest_bars(bars), found) and list(found.symbols_S) == ["S0", "S1"]
    assert read_digests(tmp_path) is None


def test_a_damaged_file_is_named_in_one_line(tmp_path):
    (tmp_path / "bars.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(RecordError, match=r"bars.npz is damaged"):
        read_digests(tmp_path)
