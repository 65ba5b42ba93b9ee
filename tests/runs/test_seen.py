"""What counts as seen before: days that overlap and stocks that are the same under any name, scale, order or path."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.core.bars import ARRAYS, Bars
from hftraining.runs.ledger import Ledger
from hftraining.runs.month_digests import FEWEST_BARS, month_digests
from hftraining.runs.seen import Months, Place, overlaps, plain_symbols
from hftraining.runs.trials import Trials
from tests.bars_of import make_bars
from tests.runs.ledgers import any_returns, days, new_ledger

BARS = make_bars(600, 5, seed=7)  # 2015-01-01 to 2017-04-19
VALID, TEST = ("2016-01-04", "2016-06-30"), ("2016-07-11", "2017-03-31")


def changed(bars: Bars, **changes) -> Bars:
    return replace(bars, **changes)


def taken(bars: Bars, columns: list[int]) -> Bars:
    arrays = {name: getattr(bars, name)[:, columns] for name in ARRAYS}
    return replace(bars, symbols_S=tuple(bars.symbols_S[s] for s in columns), **arrays)


def renamed(bars: Bars) -> Bars:
    return replace(bars, symbols_S=tuple(f"NEW{s}" for s in range(len(bars.symbols_S))))


def scaled(bars: Bars, by: float) -> Bars:
    return replace(bars, **{name: getattr(bars, name) * by for name in ARRAYS if name != "volume_TS"})


def adjusted(bars: Bars) -> Bars:
    """A later snapshot: a dividend after the last bar scales all prices, which are stored as 32-bit floats."""
    return replace(bars, **{name: np.float32(getattr(bars, name) * 0.98765).astype(float) for name in ARRAYS})


def begin(ledger: Ledger, bars: Bars, signature: str, valid=VALID, test=TEST, **others) -> int:
    """The row of a run on bars, with their months."""
    fingerprint = bars.fingerprint()
    ledger.remember(fingerprint, month_digests(bars))
    return ledger.begin(
        **{"kind": "base", "name": "n", "folder": ledger.path.parent / signature, "signature": signature}
        | {"fingerprint": fingerprint, "symbols": bars.symbols_S, "code": "c0de"}
        | {"windows": {"valid": valid} | ({"test": test} if test else {})}
        | others
    )


def opened(ledger: Ledger, bars: Bars, signature: str, **places) -> tuple[int, Trials, int]:
    """A run that ends: its row, its trials, and its openings."""
    row = begin(ledger, bars, signature, **places)
    openings = ledger.open_test(row)
    returns = {"valid": days(any_returns(signature)), "test": days(any_returns(f"{signature} test"))}
    ledger.finish(row, status="done", **returns)
    return row, ledger.trials(row), openings


# --- attacks on the count ---------------------------------------------------------------------------------------------

ATTACKS = {
    "longer horizons: other purge": (BARS, {"valid": ("2016-01-04", "2016-06-23")}),
    "a day later": (BARS, {"valid": ("2016-01-05", "2016-07-01"), "test": ("2016-07-12", "2017-03-31")}),
    "another end": (BARS.rows(slice(0, 570)), {"test": ("2016-07-11", "2017-03-08")}),
    "another start": (BARS.rows(slice(60, None)), {}),
    "four of five": (taken(BARS, [0, 1, 2, 4]), {}),
    "one of five": (taken(BARS, [3]), {}),
    "another order": (taken(BARS, [4, 2, 0, 1, 3]), {}),
    "renamed": (renamed(BARS), {}),
    "renamed, another order, one of five": (renamed(taken(BARS, [3])), {}),
    "renamed and scaled": (renamed(scaled(BARS, 1 / 7)), {}),
    "renamed and adjusted": (renamed(adjusted(BARS)), {}),
    "renamed, another end and start": (renamed(BARS.rows(slice(100, 500))), {"test": ("2016-07-11", "2016-11-30")}),
    "lower case": (changed(BARS, symbols_S=tuple(name.lower() for name in BARS.symbols_S)), {}),
    "one old stock among new ones": (
        changed(
            make_bars(600, 5, seed=8),
            close_TS=np.c_[make_bars(600, 4, seed=8).close_TS, BARS.close_TS[:, 1]],
            symbols_S=tuple("VWXYZ"),
        ),
        {},
    ),
    "only the last weeks": (BARS, {"valid": ("2016-06-20", "2016-07-08"), "test": ("2017-03-20", "2017-03-31")}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_other_description_of_the_same_days_and_stocks_begins_a_new_count(tmp_path, attack):
    ledger = new_ledger(tmp_path)
    assert [opened(ledger, BARS, signature)[1].count for signature in ("aa", "bb", "cc")] == [1, 2, 3]
    bars, places = ATTACKS[attack]
    row, trials, openings = opened(ledger, bars, "dd", **places)
    assert (trials.count, trials.crossed, openings) == (4, 0, 4)
    assert len(trials.known) == 4 and len(ledger.openings(row).known) == 4
    assert ledger.trials(1).count == 4, "and for a run that began before"


STRANGERS = {
    "other stocks": (changed(make_bars(600, 5, seed=8), symbols_S=tuple("VWXYZ")), {}),
    "later days": (BARS, {"valid": ("2017-04-03", "2017-04-07"), "test": ("2017-04-10", "2017-04-19")}),
    "other stocks in the shared months": (  # renamed, and of all months only those outside of both periods are the same
        changed(
            renamed(BARS), close_TS=np.r_[BARS.close_TS[:200], make_bars(600, 5, seed=9).close_TS[200:]]
        ),
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("stranger", STRANGERS)
def test_other_stocks_or_days_are_counted_by_themselves(tmp_path, stranger):
    ledger = new_ledger(tmp_path)
    for signature in ("aa", "bb"):
        opened(ledger, BARS, signature)
    bars, places = STRANGERS[stranger]
    _, trials, openings = opened(ledger, bars, "dd", **places)
    assert (trials.count, openings) == (1, 1)


def test_rows_of_earlier_versions_count_by_names_and_days(tmp_path):
    ledger = new_ledger(tmp_path)
    row = {"kind": "base", "name": "n", "folder": tmp_path, "code": "c0de", "windows": {"valid": VALID}}
    ledger.begin(**row, signature="aa", fingerprint="0001", symbols=["S1", "QQ"])
    ledger.begin(**row, signature="bb", fingerprint="0002", symbols=["QQ"])
    assert opened(ledger, BARS, "cc")[1].count == 2
    assert opened(ledger, renamed(BARS), "dd")[1].count == 2, "a stock renamed since then is not recognised"


# --- the other role ---------------------------------------------------------------------------------------------------


def test_test_days_that_become_validation_days_have_been_seen_as_often_as_they_were_opened(tmp_path):
    ledger = new_ledger(tmp_path)
    for signature in ("aa", "bb", "cc"):
        opened(ledger, BARS, signature)
    begin(ledger, BARS, "never opened")
    _, trials, openings = opened(ledger, BARS, "dd", valid=("2016-07-11", "2016-10-31"), test=("2016-11-07", TEST[1]))
    assert (trials.count, trials.crossed, trials.direct) == (4, 3, 1)
    seen = {tuple(one.days.returns) for one in trials.known if one.crossed}
    assert seen == {tuple(any_returns(f"{signature} test")) for signature in ("aa", "bb", "cc")}
    assert openings == 4


def test_validation_days_that_become_test_days_are_no_first_look(tmp_path):
    ledger = new_ledger(tmp_path)
    rows = [begin(ledger, BARS, signature, test=None) for signature in ("aa", "bb", "cc")]
    for row, signature in zip(rows, ("aa", "bb", "cc"), strict=True):
        ledger.finish(row, status="done", valid=days(any_returns(signature)))
    row, trials, openings = opened(ledger, BARS, "dd", valid=("2015-06-01", "2015-12-01"), test=VALID)
    found = ledger.openings(row)
    assert (trials.count, openings) == (1, 1) and (found.count, found.crossed, found.direct) == (4, 3, 1)
    assert [one.crossed for one in found.known] == [False, True, True, True]


def test_a_run_seen_in_both_roles_is_one_look(tmp_path):
    ledger = new_ledger(tmp_path)
    opened(ledger, BARS, "aa")
    _, trials, _ = opened(ledger, BARS, "bb", valid=("2016-03-01", "2016-09-30"), test=("2016-10-10", TEST[1]))
    assert (trials.count, trials.crossed) == (2, 0)


# --- folds ------------------------------------------------------------------------------------------------------------


def test_a_trial_of_several_folds_counts_once_and_each_fold_sees_the_other_trials(tmp_path):
    ledger = new_ledger(tmp_path)
    pieces = [("2016-01-04", "2016-02-29"), ("2016-03-07", "2016-04-29"), ("2016-05-06", "2016-06-30")]
    for number in range(4):
        whole = begin(ledger, BARS, f"t{number}", test=None, uuid=f"u{number}")
        for fold, piece in enumerate(pieces):
            part = begin(ledger, BARS, f"t{number}f{fold}", valid=piece, test=None, part_of=f"u{number}")
            returns = days(any_returns(f"{number} {fold}"))
            found = ledger.trials(part, returns)
            assert found.count == number + 1 and found.known[-1].row == part
            ledger.finish(part, status="done", valid=returns)
        ledger.finish(whole, status="done", valid=days(any_returns(f"{number}")))
        assert ledger.trials(whole).count == number + 1
    _, trials, _ = opened(ledger, BARS, "final")
    assert trials.count == 5 and {one.signature for one in trials.known} == {"t0", "t1", "t2", "t3", "final"}


# --- digests ----------------------------------------------------------------------------------------------------------


def naive_digests(bars: Bars) -> dict[tuple[str, str], tuple]:
    """(symbol, month) -> what its digest must stand for: the rounded returns, by a loop."""
    found = {}
    for s, symbol in enumerate(bars.symbols_S):
        before, by_month = None, {}
        for day, close in zip(bars.sessions_T, bars.close_TS[:, s], strict=True):
            if np.isnan(close):
                continue
            month = by_month.setdefault(str(day)[:7], [0, []])
            month[0] += 1
            if before is not None:
                month[1].append(round((close / before - 1.0) * 1e5))
            before = close
        for month, (n_bars, moves) in by_month.items():
            if n_bars >= FEWEST_BARS and sum(move != 0 for move in moves) >= 3:
                found[symbol, month] = tuple(moves)
    return found


def as_dict(bars: Bars, months: Months) -> dict[tuple[str, str], int]:
    names = [str(np.datetime64("1970-01") + months.first + m) for m in range(len(months.digests) // months.width)]
    keys = [(symbol, month) for month in names for symbol in bars.symbols_S]
    return {key: digest for key, digest in zip(keys, months.digests, strict=True) if digest}


def test_months_have_equal_digests_exactly_where_a_loop_finds_equal_returns():
    bars = make_bars(300, 4, seed=3, missing=0.3)
    close_TS = bars.close_TS.copy()
    close_TS[100:, 1] = close_TS[100:, 0] * 3.0  # the same returns from the second one on, at another scale
    close_TS[200:, 2] = np.where(np.isnan(close_TS[200:, 2]), np.nan, 10.0)  # halted
    close_TS[:120, 3] = np.nan  # listed late
    bars = replace(bars, close_TS=close_TS)
    expected, found = naive_digests(bars), as_dict(bars, month_digests(bars))
    assert expected.keys() == found.keys() and len(found) > 25
    pairs = [(one, other) for one in found for other in found if one < other]
    equal = {pair for pair in pairs if found[pair[0]] == found[pair[1]]}
    assert equal == {(one, other) for one, other in pairs if one[1] == other[1] and expected[one] == expected[other]}
    assert len(equal) >= 5


def test_a_digest_depends_on_the_month_and_on_the_order_of_its_returns():
    sessions = np.busday_offset(np.datetime64("2020-01-01"), np.arange(43), roll="forward")
    moves = np.tile(np.r_[0.0, np.linspace(0.01, 0.02, 22)], 1)
    first = Bars(("A",), sessions[:23], *[50.0 * np.cumprod(1.0 + moves)[:, None]] * 5)
    later = replace(first, sessions_T=np.busday_offset(np.datetime64("2020-07-01"), np.arange(23), roll="forward"))
    turned = replace(first, close_TS=50.0 * np.cumprod(1.0 + np.r_[0.0, moves[:0:-1]])[:, None])
    digests = [month_digests(bars).digests[0] for bars in (first, later, turned)]
    assert len(set(digests)) == 3 and 0 not in digests


def test_a_month_without_enough_bars_or_moves_has_no_digest():
    sessions = np.busday_offset(np.datetime64("2020-01-01"), np.arange(23), roll="forward")  # all of January
    flat, few = np.full(23, 7.0), np.full(23, np.nan)
    few[:4] = [7.0, 7.1, 7.2, 7.3]
    almost = flat.copy()
    almost[10] = 8.0  # up and down again: two moves
    arrays = [np.c_[flat, few, almost, np.full(23, np.nan), np.linspace(7, 8, 23)]] * 5
    months = month_digests(Bars(tuple("ABCDE"), sessions, *arrays))
    assert [digest != 0 for digest in months.digests] == [False, False, False, False, True]
    empty = month_digests(Bars(("A",), sessions, *[np.full((23, 1), np.nan)] * 5))
    assert list(empty.digests) == [0]


def test_the_digests_of_a_later_adjusted_or_longer_snapshot_mostly_agree():
    bars = make_bars(1200, 20, seed=1)
    ours = as_dict(bars, month_digests(bars))
    for other, least in ((scaled(bars, 3.7), 1.0), (adjusted(bars), 0.8), (bars.rows(slice(0, 1190)), 0.98)):
        theirs = as_dict(other, month_digests(other))
        assert np.mean([theirs[key] == ours[key] for key in theirs]) >= least


def test_months_are_stored_and_read_back_and_cut_to_days(tmp_path):
    months = month_digests(BARS)
    again = Months.unpacked(months.first, months.width, months.packed())
    assert again == months and len(months.packed()) == 8 * 5 * 28
    assert months.between("2016-01-20", "2016-02-03") == frozenset(months.digests[12 * 5 : 14 * 5])
    assert months.between("1999-01-01", "2014-12-31") == months.between("2017-05-01", "2020-01-01") == frozenset()
    assert months.between("2014-06-01", "2020-01-01") == frozenset(months.digests)


@pytest.mark.parametrize(
    ("theirs", "shared"),
    [(("2011-01-01", "2011-01-05"), True), (("2011-01-01", "2011-01-04"), False), (("2012-12-31", "2013-06-01"), True)],
)
def test_days_overlap_where_the_spans_share_one(theirs, shared):
    ours = Place.of(["A"], "2011-01-05", "2012-12-31", "1")
    assert overlaps(ours, Place.of(["a"], *theirs, "2"), lambda fingerprint: None) is shared


def test_symbols_are_compared_without_case_and_separators():
    assert plain_symbols(["brk.b", "BRK-B", " Brk/B "]) == {"BRK-B"}
    assert plain_symbols(["BF-B", "BFB"]) == {"BF-B", "BFB"}
