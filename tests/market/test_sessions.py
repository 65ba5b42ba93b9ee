"""Gaps are named by symbol and span, against an exchange's calendar or the other symbols; intraday bars are seen."""

import subprocess
import sys
from pathlib import Path

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.prices import load_bars
from hftraining.market.sessions import CALENDAR_OF, notes_on_sessions
from tests.bars_of import load, made_bars, refused
from tests.slowly import mostly_slow

NEW_YORK = exchange_calendars.get_calendar("XNYS", start="2005-01-01", end="2006-12-31")
SESSIONS = NEW_YORK.sessions[:400]


def on(sessions, symbol: str = "S0") -> pd.DataFrame:
    """Bars of one symbol on some days."""
    return made_bars((symbol,), days=len(sessions)).assign(date=pd.DatetimeIndex(sessions))


def notes(folder: Path, bars: pd.DataFrame, **changes) -> tuple[str, ...]:
    bars.to_csv(folder / "bars.csv", index=False)
    return load(folder / "bars.csv", **changes).warnings


def test_sixty_sessions_that_one_symbol_lacks_in_a_row_are_named(tmp_path):
    first = SESSIONS.get_loc("2005-03-01")
    gap = SESSIONS[first : first + 60]
    (note,) = notes(tmp_path, on(SESSIONS.difference(gap)))
    assert note == "S0: 60 sessions missing from 2005-03-01 to 2005-05-24 (sessions of XNYS)"
    assert str(gap[-1].date()) == "2005-05-24"


def test_whole_bars_of_an_exchange_give_no_note(tmp_path):
    assert notes(tmp_path, on(SESSIONS)) == ()


def test_four_sessions_in_a_row_are_no_gap_and_five_are(tmp_path):
    assert notes(tmp_path, on(SESSIONS.delete(range(100, 104)))) == ()
    assert notes(tmp_path, on(SESSIONS.delete(range(100, 105))))[0].startswith("S0: 5 sessions missing from ")


def test_many_scattered_sessions_are_counted(tmp_path):
    (note,) = notes(tmp_path, on(SESSIONS.delete(range(5, 395, 20))))
    # 20 of 400, of which none are neighbours.
    first, last = SESSIONS[5].date(), SESSIONS[385].date()
    assert note == f"S0: 20 of 400 sessions missing, scattered from {first} to {last} (sessions of XNYS)"
    assert notes(tmp_path, on(SESSIONS.delete(range(5, 395, 60)))) == ()


def test_what_lies_before_the_first_and_after_the_last_bar_is_no_gap(tmp_path):
    assert notes(tmp_path, pd.concat([on(SESSIONS), on(SESSIONS[100:200], "LATE")])) == ()


def test_long_lists_of_gaps_are_cut_after_the_longest(tmp_path):
    frames = [on(SESSIONS.delete(range(50, 55 + n)), f"S{n:02}") for n in range(30)]
    (note,) = notes(tmp_path, pd.concat([on(SESSIONS, "ALL"), *frames]))
    assert note.startswith("S29: 34 sessions missing") and note.count("sessions missing") == 10
    assert note.endswith("; and 20 more gaps (sessions of XNYS)")


def test_bars_on_a_holiday_and_on_a_weekend_are_named(tmp_path):
    strange = pd.DatetimeIndex(["2005-07-04", "2005-07-09", "2005-12-26"])
    (note,) = notes(tmp_path, on(SESSIONS.union(strange)))
    assert note == "days with bars that are no sessions of XNYS: 2005-07-04, 2005-07-09, 2005-12-26"


@pytest.mark.slow
def test_all_weekdays_are_not_taken_for_new_york_and_need_no_calendar(tmp_path):
    weekdays = pd.bdate_range("2005-01-03", periods=400)
    assert notes(tmp_path, on(weekdays)) == ()
    code = (
        "import sys; from tests.bars_of import load; from pathlib import Path; "
        "load(Path(sys.argv[1])); print('exchange_calendars' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "bars.csv")], text=True)
    assert out.strip() == "False"  # a fifth of a second that a run of a second saves


def test_without_a_calendar_the_days_of_the_other_symbols_count(tmp_path):
    weekdays = pd.bdate_range("2005-01-03", periods=400)
    (note,) = notes(tmp_path, pd.concat([on(weekdays, "A"), on(weekdays.delete(range(100, 107)), "B")]))
    first, last = weekdays[100].date(), weekdays[106].date()
    assert note == f"B: 7 sessions missing from {first} to {last} (sessions of the days on which any symbol has bars)"


def test_without_a_calendar_a_long_time_without_any_bar_is_named_in_weekdays(tmp_path):
    weekdays = pd.bdate_range("2005-01-03", periods=400)
    (note,) = notes(tmp_path, on(weekdays.delete(range(100, 160))))
    assert note.startswith(f"S0: 60 sessions missing from {weekdays[100].date()} to {weekdays[159].date()}")
    assert notes(tmp_path, on(weekdays.delete(range(100, 108)))) == ()  # a new year in Shanghai


def test_a_few_weekend_days_are_named_and_the_weekends_of_what_trades_always_are_not(tmp_path):
    weekdays = pd.bdate_range("2005-01-03", periods=400)
    (note,) = notes(tmp_path, on(weekdays.union(["2005-03-05"])))
    assert note == "days with bars on a weekend: 2005-03-05"
    assert notes(tmp_path, on(pd.date_range("2005-01-01", periods=400))) == ()


def test_weekly_bars_are_seen_not_to_be_daily(tmp_path):
    (note,) = notes(tmp_path, on(SESSIONS[::5]))
    assert "of 396 sessions missing" in note


def test_another_calendar_names_other_gaps_and_changes_no_bar(tmp_path):
    gap = on(SESSIONS.delete(range(100, 110)))
    gap.to_csv(tmp_path / "bars.csv", index=False)
    new_york, tokyo = (load(tmp_path / "bars.csv", calendar=name) for name in ("XNYS", "XTKS"))
    assert new_york.fingerprint() == tokyo.fingerprint()
    assert new_york.warnings == load(tmp_path / "bars.csv").warnings != tokyo.warnings
    assert any("no sessions of XTKS" in note for note in tokyo.warnings)


@pytest.mark.parametrize("name", ["XNYC", "NewYork", "", "x" * 10**6, "../XNYS"])
def test_an_unknown_calendar_is_refused_before_anything_is_read(tmp_path, name):
    message = refused(tmp_path / "nothing.csv", calendar=name)
    assert message.startswith("stocks.calendar=") and "is not a calendar" in message and len(message) < 200
    assert "did you mean XNYS?" in refused(tmp_path / "nothing.csv", calendar="xnys")


def test_every_exchange_of_yahoo_leads_to_a_calendar_of_the_library():
    assert set(CALENDAR_OF.values()) <= set(exchange_calendars.get_calendar_names())


def test_days_that_a_calendar_was_not_made_for_are_not_measured(tmp_path):
    bars = on(pd.bdate_range("1990-01-01", periods=400))  # Tokyo's calendar begins in 1997
    assert notes(tmp_path, bars, calendar="XTKS") == ()
    across = pd.bdate_range("1996-06-03", periods=400)
    assert all("199" in note for note in notes(tmp_path, on(across), calendar="XTKS"))


def test_a_calendar_that_the_library_has_not_finished_is_refused_by_name_and_left_out_as_an_exchange_s(tmp_path):
    bars = on(SESSIONS)
    bars.to_csv(tmp_path / "bars.csv", index=False)
    assert refused(tmp_path / "bars.csv", calendar="XBEL") == (
        "stocks.calendar=XBEL is not finished in the library exchange_calendars"
    )
    loaded = load(tmp_path / "bars.csv")
    (note,) = notes_on_sessions(loaded, None, {"S0": "ATH"})
    assert note == "the calendar ASEX is not finished in the library exchange_calendars, and was not used"


def test_gaps_equal_those_of_a_search_by_pandas(tmp_path):
    rng = np.random.default_rng(3)
    kept = SESSIONS[(rng.random(400) > 0.3) | (np.arange(400) % 399 == 0)].delete(slice(40, 50))
    text = " ".join(notes(tmp_path, on(kept), calendar="XNYS"))
    gone = pd.Series(~SESSIONS.isin(kept), SESSIONS)
    runs = gone[gone].groupby((~gone).cumsum()[gone]).apply(lambda run: (len(run), run.index[0], run.index[-1]))
    long = [run for run in runs if run[0] >= 5]
    for count, first, last in long:
        assert f"S0: {count} sessions missing from {first.date()} to {last.date()}" in text
    assert text.count("sessions missing from") == len(long) >= 1
    assert f"{sum(run[0] for run in runs if run[0] < 5)} of 400 sessions missing, scattered" in text


def test_the_sample_of_five_is_whole():
    assert load_bars(StocksConfig(source="sample5")).warnings == ()


def test_the_longest_gap_of_a_stock_with_another_company_s_prices_is_named(shared_data):
    bars = load(shared_data / "sp500_339_2015_2020.parquet", bad_rows="drop", symbols=["AAPL", "MSFT"])
    assert not any("AAPL: " in note for note in bars.warnings)


# Intraday bars.


def hourly(days: int = 70) -> pd.DataFrame:
    """Seven bars a day of two symbols: the random walk of made_bars, seven rows a day."""
    frames = []
    for symbol, rows in made_bars(days=days * 7).groupby("symbol"):
        stamps = [day + pd.Timedelta(hours=9.5 + n) for day in SESSIONS[:days] for n in range(7)]
        frames.append(rows.assign(symbol=symbol, date=stamps))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("bad_rows", ["refuse", "drop"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_intraday_bars_are_named_and_refused_whatever_bad_rows_says(tmp_path, bad_rows, suffix):
    path = tmp_path / f"bars.{suffix}"
    hourly().to_csv(path, index=False) if suffix == "csv" else hourly().to_parquet(path)
    assert refused(path, bad_rows=bad_rows) == (
        f"AAA has 7 bars on 2005-01-03 in {path}: intraday bars; stocks.resample=1d makes daily bars of them"
    )


@pytest.mark.parametrize("suffix", mostly_slow(["csv", "parquet"], quick=(0,)))
def test_resampled_bars_equal_a_naive_loop_over_the_hours(tmp_path, suffix):
    bars = hourly()
    mixed, path = bars.sample(frac=1, random_state=2), tmp_path / f"bars.{suffix}"
    mixed.to_csv(path, index=False) if suffix == "csv" else mixed.to_parquet(path)
    loaded = load(path, resample="1d")
    assert loaded.close_TS.shape == (70, 2)
    for s, symbol in enumerate(loaded.symbols_S):
        for t, day in enumerate(loaded.sessions_T):
            rows = bars[(bars["symbol"] == symbol) & (bars["date"].dt.date == day.item())].sort_values("date")
            assert loaded.open_TS[t, s] == pytest.approx(rows["open"].tolist()[0], rel=1e-12)
            assert loaded.high_TS[t, s] == pytest.approx(max(rows["high"]), rel=1e-12)
            assert loaded.low_TS[t, s] == pytest.approx(min(rows["low"]), rel=1e-12)
            assert loaded.close_TS[t, s] == pytest.approx(rows["close"].tolist()[-1], rel=1e-12)
            assert loaded.volume_TS[t, s] == sum(rows["volume"])
    assert loaded.warnings == (
        "stocks.resample=1d made 140 daily bars of 980 rows; all bars of a day are used, those before and after the "
        "exchange's hours too",
    )


def test_the_adjusted_close_of_the_last_bar_adjusts_the_day(tmp_path):
    bars = hourly()
    bars.assign(adj_close=bars["close"] / 2).to_csv(tmp_path / "bars.csv", index=False)
    bars.to_csv(tmp_path / "plain.csv", index=False)
    halved, whole = (load(tmp_path / name, resample="1d") for name in ("bars.csv", "plain.csv"))
    assert np.allclose(halved.high_TS * 2, whole.high_TS, rtol=1e-12)


def test_the_day_is_that_of_the_zone_of_the_times(tmp_path):
    bars = hourly()  # 9:30 to 15:30 in Tokyo is 0:30 to 6:30 in London
    bars.assign(date=bars["date"].dt.tz_localize("Asia/Tokyo")).to_parquet(tmp_path / "tokyo.parquet")
    bars.to_parquet(tmp_path / "plain.parquet")
    tokyo, plain = (load(tmp_path / f"{name}.parquet", resample="1d") for name in ("tokyo", "plain"))
    assert tokyo.fingerprint() == plain.fingerprint()


def test_two_rows_of_one_moment_stay_duplicates(tmp_path):
    bars = hourly()
    pd.concat([bars, bars.iloc[[3]]]).to_csv(tmp_path / "bars.csv", index=False)
    message = refused(tmp_path / "bars.csv", resample="1d")
    assert "AAA on 2005-01-03" in message and "is one of several rows for its moment (1 such row)" in message
    loaded = load(tmp_path / "bars.csv", resample="1d", bad_rows="drop")
    assert loaded.volume_TS[0, 0] == sum(bars["volume"][:7])


def test_a_bad_hour_is_found_before_it_disappears_in_its_day(tmp_path):
    bars = hourly()
    bars.loc[3, "low"] = np.nan
    bars.to_csv(tmp_path / "bars.csv", index=False)
    assert "lacks some prices" in refused(tmp_path / "bars.csv", resample="1d")


def test_daily_bars_with_a_time_of_day_are_daily_and_resampling_changes_no_bar(tmp_path):
    bars = made_bars()
    bars.assign(date=bars["date"].dt.strftime("%Y-%m-%d 16:00:00-05:00")).to_csv(tmp_path / "times.csv", index=False)
    bars.to_csv(tmp_path / "days.csv", index=False)
    times, days = load(tmp_path / "times.csv"), load(tmp_path / "days.csv")
    assert times.fingerprint() == days.fingerprint() == load(tmp_path / "times.csv", resample="1d").fingerprint()


def test_hours_that_are_spread_over_files_are_seen_too(tmp_path):
    for hour, rows in hourly().groupby(hourly()["date"].dt.hour):
        rows.to_csv(tmp_path / f"{hour:02}.csv", index=False)
    assert "7 bars on 2005-01-03" in refused(tmp_path)
    assert load(tmp_path, resample="1d").close_TS.shape == (70, 2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2015-01-05 16:00", 57600),
        ("2015-01-05T16:00:01.5Z", 57601.5),
        ("1/5/2015 4:00 PM", 57600),
        ("2015-01-05 12:30 am", 1800),
        ("2015-01-05 00:00:00-05:00", 0),
        ("2015-01-05 09:30:00 America/New_York", 34200),
        ("20150105 09:30", 34200),
    ],
)
def test_times_of_day_are_read_as_written(text, seconds):
    import pyarrow as pa

    from hftraining.market.dates import days_and_times

    days, times = days_and_times(pa.chunked_array([[text, "1/13/2015" if "/5/" in text else "2015-01-13"]]), "f")
    assert str(days[0].as_py().date()) == "2015-01-05"
    assert (times[0].as_py() if times is not None else 0) == seconds * 10**6


def test_only_daily_resampling_of_files_is_offered():
    with pytest.raises(ValueError, match=r"stocks.resample=1h is not one of 1d"):
        StocksConfig(source="files", path="x", resample="1h")
    with pytest.raises(ValueError, match=r"stocks.resample=1d needs stocks.source=files, not source=sample"):
        StocksConfig(resample="1d")
    assert issubclass(MarketDataError, ValueError)
