"""Decisions of other tools: how they are read, put on sessions, and refused in one line."""

import numpy as np
import pandas as pd
import pytest

from hfinference.decisions import decisions_on, digest_of, read_decisions, rows_of_frame
from hftraining.core.errors import UserError
from hftraining.trading.config import ProfitTrackerConfig
from tests.bars_of import make_bars

BARS = make_bars(60, 3)
DAYS = [str(day) for day in BARS.sessions_T]
RULES = ProfitTrackerConfig()


def written(tmp_path, text, name="weights.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def on_bars(path, rules=RULES, **window):
    return decisions_on(read_decisions(path), BARS, rules, **window)


def refused(path, rules=RULES, **window) -> str:
    with pytest.raises(UserError) as caught:
        on_bars(path, rules, **window)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_a_date_names_the_whole_book_and_other_sessions_decide_nothing(tmp_path):
    text = f"Date,Ticker,Weight\n{DAYS[3]},S0,0.25\n{DAYS[3]},s2,-0.5\n{DAYS[9]},S1,1\n"
    found = on_bars(written(tmp_path, text))
    assert not found.in_shares and found.row_D.tolist() == [3, 9] and not found.notes
    assert found.book_TS[3].tolist() == [0.25, 0.0, -0.5] and found.book_TS[9].tolist() == [0.0, 1.0, 0.0]
    assert np.isnan(np.delete(found.book_TS, [3, 9], axis=0)).all()


def test_csv_parquet_and_frames_say_the_same(tmp_path):
    frame = pd.DataFrame({"date": [DAYS[5], DAYS[4]], "symbol": ["S1", "S0"], "position": [10.5, -3]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv.gz", index=False)
    frame.assign(date=pd.to_datetime(frame["date"])).to_parquet(tmp_path / "c.parquet")
    indexed = frame.assign(date=pd.to_datetime(frame["date"])).set_index(["date", "symbol"])
    tables = [read_decisions(tmp_path / name) for name in ("a.csv", "b.csv.gz", "c.parquet")]
    tables += [rows_of_frame(frame[::-1]), rows_of_frame(indexed), rows_of_frame(indexed.reset_index("symbol"))]
    for rows in tables:
        found = decisions_on(rows, BARS, RULES)
        assert found.in_shares and found.book_TS[4].tolist() == [-3, 0, 0] and found.book_TS[5].tolist() == [0, 10.5, 0]
    assert len({digest_of(rows) for rows in tables}) == 1
    assert digest_of(rows_of_frame(frame.assign(position=[10.5, -4]))) != digest_of(tables[0])


def test_a_weekend_counts_as_the_session_before_it(tmp_path):
    friday = next(t for t, day in enumerate(DAYS) if np.datetime64(day).item().weekday() == 4 and t > 5)
    saturday = np.datetime64(DAYS[friday]) + 1
    found = on_bars(written(tmp_path, f"date,symbol,weight\n{saturday},S0,0.5\n"))
    assert found.row_D.tolist() == [friday]
    assert found.notes == (f"1 date is no session and counts as the session before, {saturday} as {DAYS[friday]}",)
    both = written(tmp_path, f"date,symbol,weight\n{DAYS[friday]},S1,0.5\n{saturday},S0,0.5\n", "both.csv")
    assert f"{saturday} is no session, and its decision would be that of {DAYS[friday]}" in refused(both)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (f"{DAYS[3]},S9,0.1", "S9 is not a symbol of the bars; there are S0, S1, S2"),
        (f"{DAYS[3]},S0,0.1\n{DAYS[3]},S0,0.2", f"S0 stands twice on {DAYS[3]}, in rows 1 and 2"),
        (f"{DAYS[3]},S0,0.1\n{DAYS[3]},s0,0.2", f"S0 stands twice on {DAYS[3]}, in rows 1 and 2"),
        (f"{DAYS[3]},S0,0.1\n{DAYS[3]},S1,", f"row 2: the weight of S1 on {DAYS[3]} is nan: write 0 for none"),
        (f"{DAYS[3]},S0,inf", f"row 1: the weight of S0 on {DAYS[3]} is inf"),
        (f"{DAYS[3]},S0,abc", "invalid value 'abc'"),
        (f"{DAYS[3]},S0,1.2", f"S0 on {DAYS[3]} has 1.2, beyond profit_tracker.max_position_size=1"),
        (
            f"{DAYS[3]},S0,0.8\n{DAYS[3]},S1,-0.7",
            f"the weights of {DAYS[3]} are 1.5 in all, beyond profit_tracker.max_g",
        ),
        ("2014-12-30,S0,0.1", f"2014-12-30 lies outside the bars, which run from {DAYS[0]} to {DAYS[-1]}"),
        ("2031-01-02,S0,0.1", "2031-01-02 lies outside the bars"),
        ("2015-02-30,S0,0.1", "'2015-02-30' is not a date that can be read"),
        (f"{DAYS[3]} 09:31:00,S0,0.1", "has a time of day, but a decision is taken after the close of its session"),
        ("", "has no rows"),
    ],
)
def test_what_cannot_be_traded_as_it_is_is_refused_in_one_line(tmp_path, rows, said):
    message = refused(written(tmp_path, f"date,symbol,weight\n{rows}\n"))
    assert said in message and "weights.csv" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("date,symbol\n", "has neither weight nor position"),
        ("date,symbol,weight,position\n", "has both weight and position: leave one out"),
        ("dates,symbol,weight\n", "has no date column; did you mean dates?"),
        ("date;symbol;weight\n", "has ; between its columns (date, symbol, weight): write commas"),
        ("date,AAPL,MSFT\n2015-01-05,0.5,0.5\n", 'frame.melt("date", var_name="symbol", value_name="weight")'),
        ("", "is empty"),
    ],
)
def test_another_table_is_refused_by_what_it_has(tmp_path, text, said):
    assert said in refused(written(tmp_path, text))


def test_a_missing_file_and_another_kind_are_named(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.csv")
    assert "is not one of .csv, .csv.gz, .parquet" in refused(written(tmp_path, "x", "book.xlsx"))
    assert "is not a regular file" in refused(tmp_path)


def test_midnight_is_no_time_of_day(tmp_path):
    assert on_bars(written(tmp_path, f"date,symbol,weight\n{DAYS[3]} 00:00:00,S0,0.1\n")).row_D.tolist() == [3]


def test_rules_allow_what_the_defaults_refuse(tmp_path):
    path = written(tmp_path, f"date,symbol,weight\n{DAYS[3]},S0,0.8\n{DAYS[3]},S1,-0.7\n")
    assert on_bars(path, ProfitTrackerConfig(max_gross=1.5)).book_TS[3].tolist() == [0.8, -0.7, 0.0]
    assert "allow_short=true allows it" in refused(path, ProfitTrackerConfig(max_gross=1.5, allow_short=False))


def test_what_rounding_left_beyond_a_cap_is_scaled_and_said(tmp_path):
    path = written(tmp_path, "date,symbol,weight\n" + "".join(f"{DAYS[3]},S{s},0.334\n" for s in range(3)))
    found = on_bars(path)
    np.testing.assert_allclose(found.book_TS[3], 1 / 3, rtol=1e-12)
    assert found.notes == ("the weights of 1 dates exceed a cap by rounding (up to 1.0020): scaled down",)


def test_decisions_outside_a_window_are_left_out_and_counted(tmp_path):
    path = written(tmp_path, "date,symbol,weight\n" + "".join(f"{DAYS[t]},S0,0.1\n" for t in (2, 5, 8, 11)))
    found = on_bars(path, start=DAYS[5], end=DAYS[8])
    assert found.row_D.tolist() == [5, 8]
    assert found.notes == (f"1 dates before {DAYS[5]} are left out", f"1 dates after {DAYS[8]} are left out")
    assert f"has no decision from {DAYS[20]} to its last" in refused(path, start=DAYS[20])
