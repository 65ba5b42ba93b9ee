"""Csv files that are written in another way: each is named as that, with the options that read it."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest

from hftraining.core.errors import ConfigError
from hftraining.market.columns import FOREIGN, key_of
from hftraining.market.config import ColumnsConfig, CsvConfig, StocksConfig
from tests.bars_of import load, made_bars, refused
from tests.compose import compose_config
from tests.slowly import mostly_slow

GERMAN = {"date": "Datum", "open": "Erster", "high": "Hoch", "low": "Tief", "close": "Schlusskurs", "volume": "Volumen"}
BARS = made_bars(("AAA",)).drop(columns="symbol").round(2)


def written(path, bars=BARS, **how):
    bars.to_csv(path, index=False, **how)
    return path


def usual(tmp_path):
    """The same bars, written as usual."""
    return load(written(tmp_path / "AAA.csv"))


def options_of(message: str) -> CsvConfig:
    """The options that a message proposes, through the shell and Hydra as a user's."""
    (typed,) = re.findall(r"'stocks\.csv=.*?\}'(?= |$)", message)
    return compose_config("stocks=folder", "stocks.path=x", *shlex.split(typed)).stocks.csv


def in_german(bars=BARS):
    dates = bars["date"].dt.strftime("%d.%m.%Y")
    return bars.assign(date=dates).rename(columns=GERMAN)


def unix(bars, seconds_after_midnight, parts):
    return bars.assign(date=(bars["date"].astype("datetime64[s]").astype("int64") + seconds_after_midnight) * parts)


WAYS = {
    "a semicolon": ({"sep": ";"}, BARS, "has ; between its columns"),
    "a tab": ({"sep": "\t"}, BARS, "has tab between its columns"),
    "a comma before decimals": ({"sep": ";", "decimal": ","}, BARS, "writes decimals with a comma"),
    "quoted decimal commas": ({"decimal": ","}, BARS, "with a comma before the decimals"),
    "other names": ({}, BARS.rename(columns=GERMAN), "calls date Datum, open Erster, high Hoch, low Tief, close Schl"),
    "names with spaces": ({}, BARS.rename(columns={"close": "Close/Last"}), "calls close Close/Last"),
    "days before months": ({}, BARS.assign(date=BARS["date"].dt.strftime("%d.%m.%Y")), "'05.01.2015' is not a date"),
    "written months": ({}, BARS.assign(date=BARS["date"].dt.strftime("%b %d, %Y")), "'Jan 05, 2015' is not a date"),
    "Unix seconds": ({}, unix(BARS, 14 * 3600, 1), "'1420466400' is not a date"),
    "Unix milliseconds": ({}, unix(BARS, 14 * 3600, 1000), "'1420466400000' is not a date"),
    "a German bank": ({"sep": ";", "decimal": ","}, in_german(), "and writes dates as 05.01.2015: "),
    "a download": (
        {"sep": ";"},
        unix(BARS.rename(columns={"volume": "vol"}), 0, 1),
        "and writes dates as 1420416000: ",
    ),
}


@pytest.mark.parametrize("way", mostly_slow(WAYS, quick=(0, 5)))
def test_another_way_of_writing_is_named_with_the_options_that_read_it(tmp_path, way):
    how, bars, said = WAYS[way]
    path = written(tmp_path / "other.csv", bars, **how)
    message = refused(path)
    assert f"{path}" in message and said in message and message.isascii()
    whole, other = usual(tmp_path), load(path, csv=options_of(message))
    assert np.array_equal(other.sessions_T, whole.sessions_T)
    for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"):
        assert np.array_equal(getattr(other, name), getattr(whole, name)), name


def test_options_that_were_given_stay_among_those_that_are_proposed(tmp_path):
    path = written(tmp_path / "AAA.csv", in_german(), sep=";", decimal=",")
    message = refused(path, csv=CsvConfig(separator=";"))
    found = options_of(message)
    assert found == options_of(refused(path)) and found.separator == ";" and found.columns.close == "Schlusskurs"


def test_a_name_is_found_without_its_case_and_signs_and_one_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path / "AAA.csv", BARS.rename(columns={"close": "Schluss Kurs"}))
    asked = CsvConfig(columns=ColumnsConfig(close="schluss-kurs"))
    assert np.array_equal(load(path, csv=asked).close_TS, BARS[["close"]])
    message = refused(path, csv=CsvConfig(columns=ColumnsConfig(close="Schluss Kur")))
    assert "no column Schluss Kur, which stocks.csv.columns.close names; did you mean Schluss Kurs?" in message


def test_a_named_column_goes_before_one_of_our_name(tmp_path):
    """The file has a close, and another column that the user takes in its place."""
    path = written(tmp_path / "AAA.csv", BARS.assign(settled=BARS["close"] * 1.0001))
    settled = load(path, csv=CsvConfig(columns=ColumnsConfig(close="settled"))).close_TS
    assert np.allclose(settled, load(path).close_TS * 1.0001, rtol=1e-12)


OTHERS = {
    "separator": (CsvConfig(separator=";"), {"sep": ";"}, {}),
    "decimal": (CsvConfig(decimal=","), {"decimal": ","}, {}),
    "date_format": (CsvConfig(date_format="%d.%m.%Y"), {"date_format": "%d.%m.%Y"}, {}),
} | {
    f"columns.{name}": (CsvConfig(columns=ColumnsConfig(**{name: "Theirs"})), {}, {name: "Theirs"})
    for name in vars(ColumnsConfig())
}


def test_every_option_is_tried():
    assert set(OTHERS) == (set(vars(CsvConfig())) - {"columns"}) | {f"columns.{name}" for name in vars(ColumnsConfig())}


@pytest.mark.parametrize("name", OTHERS)
def test_each_option_alone_reads_what_is_written_so(tmp_path, name):
    how, writing, names = OTHERS[name]
    bars = made_bars(("AAA", "BBB")).assign(adj_close=lambda rows: rows["close"] / 2)
    plain = load(written(tmp_path / "plain.csv", bars))
    path = written(tmp_path / "other.csv", bars.rename(columns=names), **writing)
    assert load(path, csv=how).fingerprint() == plain.fingerprint()
    if name in ("columns.symbol", "columns.adj_close"):  # without which other bars are read
        with pytest.raises(AssertionError):
            assert load(path, bad_rows="drop").fingerprint() == plain.fingerprint()
    else:
        refused(path)


THOUSANDS = [
    ("1,234,567", "write 1234567", {}),
    ("1,234.50", "write 1234.50", {}),
    ("1 234.50", "write 1234.50", {}),
    ("1'234.50", "write 1234.50", {}),
    ("1.234.567", "write 1234567", {}),
    ("1.234,50", "write 1234,50, and 'stocks.csv={decimal: \",\"}' then reads it", {}),
    ("1.234,50", "write 1234,50", {"csv": CsvConfig(decimal=",")}),
]


@pytest.mark.parametrize(("value", "said", "how"), THOUSANDS)
def test_signs_between_thousands_are_named(tmp_path, value, said, how):
    bars = BARS.astype({"high": object})
    bars.loc[40, "high"] = value
    if how:  # else the points of all other numbers are refused first
        bars = bars.astype(str).map(lambda text: text if text == value else text.replace(".", ","))
    message = refused(written(tmp_path / "AAA.csv", bars), **how)
    assert f"has {value} in its column high, with a sign between thousands" in message and said in message


def test_a_comma_among_volumes_stands_between_thousands(tmp_path):
    bars = BARS.assign(volume="1,234")
    assert "has 1,234 in its column volume, with a sign between thousands" in refused(written(tmp_path / "A.csv", bars))


def test_intraday_rows_in_unix_times_are_named_and_read(tmp_path):
    noon, later = unix(BARS, 12 * 3600, 1000), unix(BARS.assign(close=BARS["close"] * 1.001), 13 * 3600, 1000)
    path = written(tmp_path / "AAA.csv", pd.concat([noon, later]))
    how = options_of(refused(path))
    assert how.date_format == "unix_ms"
    message = refused(path, csv=how)
    assert "AAA has 2 bars on 2015-01-05 in" in message and "stocks.resample=1d makes daily bars" in message
    assert np.allclose(load(path, csv=how, resample="1d").close_TS[:, 0], BARS["close"] * 1.001, rtol=1e-12)


def test_names_beyond_ascii_are_proposed_and_those_that_are_no_utf_8_are_named(tmp_path):
    bars = in_german().rename(columns={"Erster": "Er\u00f6ffnung"})
    path = written(tmp_path / "AAA.csv", bars, sep=";", decimal=",")
    message = refused(path)
    assert 'open: "Er?ffnung"' in message
    assert np.array_equal(load(path, csv=options_of(message)).open_TS, BARS[["open"]])
    path = written(tmp_path / "AAA.csv", bars, sep=";", decimal=",", encoding="latin-1")
    assert "has letters in its first line that are not UTF-8" in refused(path)


def test_a_day_that_can_be_read_in_two_ways_is_named_with_both(tmp_path):
    bars = BARS.iloc[:9].assign(date=[f"0{month}/0{day}/2015" for month in (1, 2, 3) for day in (4, 5, 6)])
    message = refused(written(tmp_path / "AAA.csv", bars))
    assert '"%d/%m/%Y"' in message and '"%m/%d/%Y"' in message


def test_a_date_that_does_not_fit_the_format_is_named_with_its_row(tmp_path):
    path = written(
        tmp_path / "AAA.csv", in_german().assign(Datum=lambda rows: rows["Datum"].mask(rows.index == 7, "x"))
    )
    message = refused(path, csv=CsvConfig(date_format="%d.%m.%Y", columns=ColumnsConfig(**GERMAN)))
    assert "row 8: 'x' is not a date that can be read; stocks.csv.date_format=%d.%m.%Y does not fit" in message


def test_a_column_that_nothing_resembles_is_named_with_the_option(tmp_path):
    message = refused(written(tmp_path / "AAA.csv", BARS.drop(columns="volume")))
    assert "has no volume column" in message and "'stocks.csv={columns: {close: NAME}}' names one" in message


def test_options_without_a_csv_file_are_refused(tmp_path):
    BARS.to_parquet(tmp_path / "AAA.parquet")
    assert "has none: leave it out" in refused(tmp_path / "AAA.parquet", csv=CsvConfig(separator=";"))
    with pytest.raises(ValueError, match=r"stocks.csv needs stocks.source=files \(stocks=folder\), not source=sample"):
        StocksConfig(csv=CsvConfig(separator=";"))


@pytest.mark.parametrize(
    ("typed", "said"),
    mostly_slow(
        [
            ("stocks.csv.separator=x", "stocks.csv.separator=x is not one of ;, |, tab, ,"),
            ("stocks.csv.decimal=';'", "stocks.csv.decimal=; is not one of"),
            (
                "stocks.csv.date_format=%d.%m",
                "stocks.csv.date_format=%d.%m must name year, month and day, e.g. %d.%m.%Y",
            ),
            ("stocks.csv.date_format=unix_us", "or be one of unix_s, unix_ms"),
            ("stocks.csv={seperator: x}", "did you mean stocks.csv.separator?"),
            ("stocks.csv={columns: {closed: x}}", "did you mean stocks.csv.columns.close?"),
            ("stocks.csv={columns: {close: x, open: x}}", "stocks.csv.columns names x twice"),
            ("stocks.csv={columns: {close: ''}}", "stocks.csv.columns.close='' is not the name of a column"),
        ],
        quick=(0, 4),
    ),
)
def test_options_that_mean_nothing_are_refused(typed, said):
    with pytest.raises(ConfigError) as caught:
        compose_config("stocks=folder", "stocks.path=x", typed)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_foreign_names_are_keys():
    names = [name for names in FOREIGN.values() for name in names.split()]
    assert len(set(names)) == len(names) and all(key_of(name) == name for name in names)
