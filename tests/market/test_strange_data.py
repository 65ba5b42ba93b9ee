"""Files that a hostile or careless vendor may send: each ends in one line that names it, without a hang or a flood."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hftraining.market.columns import NEEDED
from hftraining.market.config import StocksConfig
from hftraining.market.wording import excluding, listed, plain
from tests.bars_of import load, made_bars, refused

ROWS = 900_000
HEADER = "date,open,high,low,close,volume\n"
# What a process may take for any of the bombs: most of it are pandas, pyarrow and the code of them.
MEMORY = 2**29


def numbers(rows: int) -> dict[str, pa.Array]:
    return {name: pa.array(np.ones(rows, "float32")) for name in NEEDED}


def days(rows: int) -> pa.Array:
    return pa.array(np.zeros(rows, "int32"), pa.date32())


def repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "int32")), [text])


def write(path: Path, columns: dict, **options) -> Path:
    pq.write_table(pa.table(columns), path, **({"compression": "zstd"} | options))
    return path


def long_symbol(folder: Path) -> Path:
    columns = numbers(ROWS) | {"date": days(ROWS), "symbol": repeated("S" * 100_000, ROWS)}
    return write(folder / "long_symbol.parquet", columns)


def long_date(folder: Path) -> Path:
    return write(folder / "long_date.parquet", numbers(ROWS) | {"date": repeated("2015-01-05" + " " * 100_000, ROWS)})


def long_price(folder: Path) -> Path:
    columns = numbers(ROWS) | {"date": days(ROWS), "close": repeated("1" * 100_000, ROWS)}
    return write(folder / "long_price.parquet", columns)


def wide_pages(folder: Path) -> Path:
    rows = 20_000  # 400 MB in 40 kB
    texts = pa.array(["S" * 20_000] * rows)
    columns = numbers(rows) | {"date": days(rows), "symbol": texts}
    return write(folder / "wide_pages.parquet", columns, use_dictionary=False)


def differences(folder: Path) -> Path:
    rows = 2_000
    columns = numbers(rows) | {"date": days(rows), "symbol": pa.array(["S" * 100_000] * rows)}
    encodings = {"symbol": "DELTA_BYTE_ARRAY"}
    path = folder / "differences.parquet"
    return write(path, columns, use_dictionary=False, column_encoding=encodings, data_page_size=2**30)


def packed_csv(folder: Path) -> Path:
    path = folder / "packed.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(HEADER.encode())
        for _ in range(300):
            file.write(b"2015-01-05,1,1,1,1,1\n" * 50_000)
    return path


def many_columns(folder: Path) -> Path:
    path = folder / "many_columns.csv"
    path.write_text(",".join([*HEADER.strip().split(","), *map(str, range(2_000_000))]) + "\n" + "1," * 2_000_000)
    return path


def long_field(folder: Path) -> Path:
    path = folder / "long_field.csv"
    path.write_text("symbol," + HEADER + ("S" * 900_000 + ",2015-01-05,1,1,1,1,1\n") * 30)
    return path


BOMBS: dict[Callable[[Path], Path], str] = {
    long_symbol: "has an entry of 100,000 bytes in its column 'symbol'",
    long_date: "has an entry of 100,010 bytes in its column 'date'",
    long_price: "has an entry of 100,000 bytes in its column 'close'",
    wide_pages: "unpacks to more than 18,377,216 bytes of 'symbol' for 20,000 rows",
    differences: "stores text as differences (DELTA_BYTE_ARRAY)",
    packed_csv: "unpacks to more than 7",
    many_columns: "has a first line of more than 65,536 bytes",
    long_field: "has an entry of 900,000 bytes in its column 'symbol'",
}
IN_LITTLE_MEMORY = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.prices import load_bars
said = []
for path in sys.argv[1:]:
    try:
        load_bars(StocksConfig(source="files", path=path))
    except MarketDataError as error:
        # VmHWM, since ru_maxrss counts the memory of the process that started this one, too.
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        said.append([str(error), int(status["VmHWM"].split()[0]) * 1024])
print(json.dumps(said))
"""


@pytest.mark.slow
def test_small_files_that_unpack_to_gigabytes_are_refused_in_little_memory(tmp_path):
    paths = [make(tmp_path) for make in BOMBS]
    # What is compiled once is compiled here, with all memory: Arrow ends a process that has none left for a thread.
    made_bars().to_parquet(tmp_path / "plain.parquet")
    load(tmp_path / "plain.parquet")
    said = json.loads(subprocess.check_output([sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, paths)], timeout=300))
    assert len(said) == len(BOMBS)
    for path, words, (line, peak) in zip(paths, BOMBS.values(), said, strict=True):
        assert line.startswith(f"{path} {words}") and len(line) < 400, line
        assert peak < MEMORY, (path.name, peak)


def test_a_long_symbol_that_stands_in_every_row_is_refused_while_it_is_stored_once(tmp_path):
    path = long_symbol(tmp_path)
    assert path.stat().st_size < 30_000
    assert refused(path) == f"{path} {BOMBS[long_symbol]}: not read"


def test_a_row_count_that_contradicts_the_parts_of_the_file_is_refused(tmp_path):
    path = write(tmp_path / "bars.parquet", numbers(1000) | {"date": days(1000)})
    content = path.read_bytes()
    claimed = b"\x16\xd0\x0f"  # field 3, 1000, in thrift's compact protocol
    place = content.rindex(b"PAR1", 4) and content.index(
        claimed, len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    )
    path.write_bytes(content[:place] + b"\x16\xce\x0f" + content[place + 3 :])
    assert refused(path) == f"{path} claims 999 rows, but its parts have 1,000: not read"


def test_text_prices_and_text_dates_in_parquet_are_read_as_before(tmp_path):
    bars = made_bars()
    plain_bars, texts = tmp_path / "plain.parquet", tmp_path / "texts.parquet"
    bars.to_parquet(plain_bars)
    bars.assign(date=bars["date"].dt.strftime("%Y-%m-%d"), close=bars["close"].map(repr)).to_parquet(texts)
    assert load(plain_bars).fingerprint() == load(texts).fingerprint()


@pytest.mark.parametrize(
    ("column", "value"), [("close", [1.0]), ("close", {"x": 1.0}), ("date", ["2015-01-05"]), ("symbol", {"x": "A"})]
)
def test_lists_and_records_in_a_column_are_refused(tmp_path, column, value):
    bars = made_bars()
    path = tmp_path / "bars.parquet"
    bars.assign(**{column: [value] * len(bars)}).to_parquet(path)
    assert f"has lists or records in its column '{column}'" in refused(path)


def test_lists_and_records_in_other_columns_are_never_read(tmp_path):
    bars = made_bars()
    bars.assign(news=[["a", "b"]] * len(bars), more=[{"x": 1.0}] * len(bars)).to_parquet(tmp_path / "bars.parquet")
    assert load(tmp_path / "bars.parquet").symbols_S == ("AAA", "BBB")


def test_columns_that_are_nested_very_deeply_are_refused(tmp_path):
    kind: pa.DataType = pa.int32()
    value: object = 1
    for _ in range(100):
        kind, value = pa.struct([("x", kind)]), {"x": value}
    path = write(tmp_path / "deep.parquet", numbers(1) | {"date": days(1), "deep": pa.array([value], kind)})
    assert refused(path).endswith("nests its columns more than 64 deep: not read")


@pytest.mark.slow
def test_more_columns_than_any_bars_have_are_refused(tmp_path):
    path = write(tmp_path / "wide.parquet", {str(n): pa.array([1], pa.int8()) for n in range(12_000)})
    assert "columns, more than the 10,000 that are read" in refused(path)
    (tmp_path / "wide.csv").write_text("," * 20_000 + "\n")
    assert "has 20,001 columns, more than the 10,000 that are read" in refused(tmp_path / "wide.csv")


def test_a_footer_of_many_megabytes_is_not_parsed(tmp_path):
    path = tmp_path / "footer.parquet"
    path.write_bytes(b"PAR1" + bytes(2**23 + 8) + (2**23 + 1).to_bytes(4, "little") + b"PAR1")
    assert "has a footer of 8,388,609 bytes, more than the 8,388,608 that are read" in refused(path)


@pytest.mark.slow
def test_bars_in_very_many_parts_are_read_all_the_same(tmp_path):
    bars = made_bars(days=300)
    bars.to_parquet(tmp_path / "parts.parquet", row_group_size=1)
    bars.to_parquet(tmp_path / "whole.parquet")
    assert load(tmp_path / "parts.parquet").fingerprint() == load(tmp_path / "whole.parquet").fingerprint()


@pytest.mark.parametrize("cut", [9, 40, 400, 4000])
def test_a_parquet_file_that_lost_its_middle_is_one_line(tmp_path, cut):
    made_bars().to_parquet(tmp_path / "bars.parquet")
    content = (tmp_path / "bars.parquet").read_bytes()
    (tmp_path / "bars.parquet").write_bytes(content[:200] + content[200 + cut :])
    assert refused(tmp_path / "bars.parquet").startswith(str(tmp_path / "bars.parquet"))


@pytest.mark.slow
def test_300_mutated_parquet_files_end_in_bars_or_in_one_line(tmp_path):
    """In its own process, since an error in Arrow's own code would end it."""
    code = """
import sys, numpy as np
from pathlib import Path
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.prices import load_bars
rng = np.random.default_rng(0)
content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[1]).with_name("mutated.parquet")
ends = {"bars": 0, "line": 0}
for n in range(300):
    mutated = bytearray(content)
    low = 0 if n % 2 else len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in rng.integers(low, len(content), 1 + n % 5):
        mutated[place] = rng.integers(256)
    path.write_bytes(mutated)
    try:
        load_bars(StocksConfig(source="files", path=str(path)))
        ends["bars"] += 1
    except MarketDataError as error:
        assert "\\n" not in str(error) and str(error).isascii() and len(str(error)) < 500
        ends["line"] += 1
print(ends["bars"], ends["line"])
"""
    made_bars().to_parquet(tmp_path / "bars.parquet")
    out = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "bars.parquet")], timeout=300)
    assert sum(map(int, out.split())) == 300


def test_a_gzip_file_that_is_cut_or_damaged_is_one_line(tmp_path):
    content = bytearray(gzip.compress(made_bars().to_csv(index=False).encode()))
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be read" in refused(path)
    for place in (3, 10, 200, len(content) - 6):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        assert refused(path).startswith(f"{path} ") or place == 3


# What is no file.


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_a_pipe_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"bars.{suffix}")
    for path in (tmp_path / f"bars.{suffix}", tmp_path):
        assert refused(path) == f"{tmp_path}/bars.{suffix} is not a regular file: only files are read"


def test_a_device_without_an_end_is_not_read(tmp_path):
    (tmp_path / "bars.csv").symlink_to("/dev/zero")
    assert "is not a regular file" in refused(tmp_path / "bars.csv")


def test_a_link_among_the_files_is_followed_and_one_that_leads_nowhere_is_one_line(tmp_path):
    made_bars().to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.csv").symlink_to(tmp_path / "bars.csv")
    assert load(tmp_path / "folder").symbols_S == ("AAA", "BBB")
    (tmp_path / "folder" / "loop.csv").symlink_to(tmp_path / "folder" / "loop.csv")
    assert "loop.csv cannot be read: Too many levels of symbolic links" in refused(tmp_path / "folder")
    (tmp_path / "folder" / "loop.csv").unlink()
    (tmp_path / "folder" / "nowhere.csv").symlink_to(tmp_path / "nothing")
    assert "nowhere.csv cannot be read: No such file or directory" in refused(tmp_path / "folder")


def test_folders_inside_a_folder_of_bars_are_not_entered(tmp_path):
    made_bars().to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "deeper").symlink_to(tmp_path)
    assert load(tmp_path).symbols_S == ("AAA", "BBB")
    (tmp_path / "more.csv").mkdir()
    assert refused(tmp_path) == f"{tmp_path}/more.csv is not a regular file: only files are read"


@pytest.mark.parametrize("path", ["x" * 5000 + ".csv", "/dev/null/x.csv", "nul\0.csv", "a\nb\x1b[31m.csv"])
def test_a_path_that_cannot_be_is_one_short_line(path):
    message = refused(Path(path))
    assert message.startswith("stocks.path=") and message.isascii() and message.isprintable() and len(message) < 500


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_line(tmp_path):
    (tmp_path / "bars.csv").write_text(HEADER)
    (tmp_path / "bars.csv").chmod(0)
    assert refused(tmp_path / "bars.csv").endswith("bars.csv cannot be read: Permission denied")


# Names.


def test_a_file_name_with_a_newline_and_colours_is_printed_harmlessly(tmp_path):
    path = tmp_path / "A\n\x1b[31mB.csv"
    made_bars(("AAA",)).drop(columns="symbol").to_csv(path, index=False)
    message = refused(path)
    assert message.isprintable() and "has the symbol 'A\\n\\x1b[31mB'" in message
    made_bars(("AAA",)).to_csv(path, index=False)  # with a symbol column, its name is only a name
    assert load(path).symbols_S == ("AAA",)
    made_bars(("AAA",)).assign(close=-1.0).to_csv(path, index=False)
    assert refused(path).isprintable()


@pytest.mark.parametrize("symbol", ["A\x1b[31m", "A\x00", "A\u202eB", "A\x7f", "S" * 65, "A\rB", "\u200b"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_symbol_that_cannot_be_printed_is_refused_harmlessly(tmp_path, symbol, suffix):
    bars, path = made_bars().replace({"symbol": {"BBB": symbol}}), tmp_path / f"bars.{suffix}"
    bars.to_csv(path, index=False) if suffix == "csv" else bars.to_parquet(path)
    message = refused(path)
    assert message.isprintable() and message.isascii() and len(message) < 400


@pytest.mark.parametrize("symbol", [None, float("nan"), "", "  "])
def test_a_row_without_a_symbol_is_refused(tmp_path, symbol):
    bars = made_bars()
    bars.loc[3, "symbol"] = symbol
    bars.to_csv(tmp_path / "bars.csv", index=False)
    bars.to_parquet(tmp_path / "bars.parquet")
    for name in ("bars.csv", "bars.parquet"):
        assert refused(tmp_path / name).endswith(f"{name} has rows with an empty symbol")


def test_symbols_with_letters_of_any_script_are_allowed_and_printed_as_ascii(tmp_path):
    bars = made_bars(("\u041c\u0422\u0421", "BBB"))
    bars.to_csv(tmp_path / "bars.csv", index=False)
    assert load(tmp_path / "bars.csv").symbols_S == ("BBB", "\u041c\u0422\u0421")
    bars.assign(close=-1.0).to_csv(tmp_path / "bars.csv", index=False)
    assert refused(tmp_path / "bars.csv").isascii()


def test_foreign_text_becomes_one_short_printable_line_and_lists_are_cut():
    assert plain("a\x1b[31m\n\u2603b") == "a?[31m ?b"
    assert len(plain("x" * 10**7)) == 160 and plain("x" * 10**7).endswith("...")
    assert listed(range(10_000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 9,990 more"
    assert listed([]) == "" and listed("AB") == "A, B"
    assert excluding("AB") == "stocks.exclude=[A,B]" and excluding(range(10_000)).endswith("18,19] and 9,980 more")


@pytest.mark.parametrize("field", ["symbols", "exclude"])
def test_ten_thousand_symbols_that_are_not_in_the_data_give_a_short_line(tmp_path, field):
    made_bars().to_csv(tmp_path / "bars.csv", index=False)
    message = refused(tmp_path / "bars.csv", **{field: [f"BAD{n}" for n in range(10_000)]})
    assert message.startswith(f"stocks.{field}: BAD0 is not in the data") and len(message) < 200
    assert len(refused(tmp_path / "bars.csv", **{field: ["Z" * 10**6]})) < 200


def test_ten_thousand_short_symbols_give_a_short_line(tmp_path):
    bars = pd.DataFrame({"symbol": [f"S{n}" for n in range(10_000)], "date": "2015-01-05"} | dict.fromkeys(NEEDED, 1.0))
    bars.to_parquet(tmp_path / "bars.parquet")
    message = refused(tmp_path / "bars.parquet")
    assert "and 9,995 more, and at least 60 are needed" in message and len(message) < 500
    everything = [f"S{n}" for n in range(10_000)]
    assert len(refused(tmp_path / "bars.parquet", exclude=everything)) < 300


def test_a_thousand_columns_without_a_close_give_a_short_line(tmp_path):
    (tmp_path / "bars.csv").write_text(",".join(f"column{n}" for n in range(1000)) + "\n1\n")
    assert len(refused(tmp_path / "bars.csv")) < 600


def test_long_settings_are_refused_in_a_short_line():
    for values in (
        {"start": "2" * 10**6},
        {"start": "2011-W01-1"},
        {"start": "20110103"},
        {"end": "\uff12011-01-03"},
        {"source": "x" * 10**6},
        {"symbols": ["X" * 10**6] * 2},
        {"source": "files", "path": "x", "resample": "1h"},
        {"resample": "1d"},
    ):
        with pytest.raises(ValueError, match=r"^stocks\.") as caught:
            StocksConfig(**values)
        assert len(str(caught.value)) < 200


# Dates.


@pytest.mark.parametrize("day", ["1899-12-29", "0001-01-01", "2999-01-01", "9999-12-31"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_day_before_1900_or_after_today_is_refused_or_dropped(tmp_path, day, suffix):
    bars = made_bars().astype({"date": str})
    bars.loc[75, "date"] = day
    if suffix == "csv":
        bars.to_csv(tmp_path / "bars.csv", index=False)
    else:
        typed = bars.assign(date=np.array(bars["date"], "datetime64[s]"))
        typed.to_parquet(tmp_path / "bars.parquet")
    path = tmp_path / f"bars.{suffix}"
    assert refused(path) == (
        f"BBB on {day} in {path} is not between 1900-01-01 and today (1 such row): correct the data, or leave such "
        "rows out with stocks.bad_rows=drop"
    )
    assert np.isfinite(load(path, bad_rows="drop").close_TS).sum() == 139


@pytest.mark.parametrize("number", [2**62, -(2**62), 10**15])
def test_a_moment_outside_the_calendar_is_refused(tmp_path, number):
    path = write(tmp_path / "bars.parquet", numbers(1) | {"date": pa.array([number], pa.timestamp("ms"))})
    assert refused(path).startswith(f"{path}, row 1: {number} ms since 1970 is not a date that can be read")


def test_a_time_zone_that_is_nowhere_is_one_line(tmp_path):
    stamps = pa.array([0], pa.timestamp("us", tz="Nowhere/At_All"))
    path = write(tmp_path / "bars.parquet", numbers(1) | {"date": stamps})
    assert refused(path).startswith(f"{path} cannot be read: ") and "Nowhere" in refused(path)


@pytest.mark.parametrize(
    "text", ["\u0662\u0660\u0661\u0665-\u0660\u0661-\u0660\u0665", "2015-01-05 soon", "2015-01-05 25:00"]
)
def test_digits_of_other_scripts_and_strange_times_are_no_dates(tmp_path, text):
    bars = made_bars().astype({"date": str})
    bars.loc[4, "date"] = text
    bars.to_csv(tmp_path / "bars.csv", index=False)
    message = refused(tmp_path / "bars.csv")
    assert "row 5: " in message and "is not a date that can be read" in message and message.isascii()


def test_rows_in_any_order_load_to_the_same_bars(tmp_path):
    bars = made_bars()
    bars.to_csv(tmp_path / "sorted.csv", index=False)
    bars.sample(frac=1, random_state=1).to_csv(tmp_path / "mixed.csv", index=False)
    assert load(tmp_path / "sorted.csv").fingerprint() == load(tmp_path / "mixed.csv").fingerprint()


# Prices.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"close": 1e308}, "has a price outside 1e-08 to 1e+12: close is 1e+308"),
        ({"low": 1e-320}, "has a price outside 1e-08 to 1e+12: low is 9.99989e-321"),
        ({"open": -1e308}, "has a price that is zero or negative: open is -1e+308"),
        ({"high": 2e12}, "has a price outside 1e-08 to 1e+12: high is 2e+12"),
        ({"volume": 1e300}, "has a volume above 1e+15: volume is 1e+300"),
        ({"adj_close": 1e-7}, "has an adj_close outside 1e-08 to 1e+10 times its close: adj_close is 1e-07"),
        ({"adj_close": 9e11}, "has an adj_close outside 1e-08 to 1e+10 times its close: adj_close is 9e+11"),
        ({"close": 1e308, "adj_close": 50.0}, "has a price outside 1e-08 to 1e+12: close is 1e+308"),
    ],
)
def test_an_absurd_price_or_volume_is_refused_by_its_value_or_dropped(tmp_path, change, said):
    bars = made_bars()
    bars["adj_close"] = bars["close"]
    bars.loc[75, list(change)] = list(change.values())
    path = tmp_path / "bars.csv"
    bars.to_csv(path, index=False)
    assert refused(path).startswith(f"BBB on 2015-01-12 in {path} {said} (1 such row): ")
    dropped = load(path, bad_rows="drop")
    assert np.isfinite(dropped.close_TS).sum() == 139 and "1 row left out" in dropped.warnings[0]


def test_an_adjustment_that_makes_prices_absurd_is_refused(tmp_path):
    bars = made_bars()
    bars["adj_close"] = bars["close"]
    bars.loc[75, ["high"]] = 9e9  # times 1000 it is beyond the bounds, although neither is by itself
    bars.loc[75, ["adj_close"]] *= 1000
    bars.to_csv(tmp_path / "bars.csv", index=False)
    message = refused(tmp_path / "bars.csv")
    assert "has, once adjusted, a price outside 1e-08 to 1e+12: high is 9e+12" in message


def test_the_highest_and_the_lowest_true_prices_are_within_the_bounds(tmp_path):
    # Berkshire Hathaway A; a reverse-split survivor once adjusted; an over-the-counter stock.
    for price in (812_000.0, 1.4e9, 1e-6):
        bars = made_bars(("X",))
        for name in NEEDED[:4]:
            bars[name] *= price / 50
        bars.to_csv(tmp_path / "bars.csv", index=False)
        assert load(tmp_path / "bars.csv").warnings == ()


def test_symbols_without_a_day_in_common_do_not_fill_the_memory(tmp_path):
    # 300,000 rows, of which a table of days and symbols would have 60 million places.
    symbols, days = 5_000, 60
    first = np.arange(np.datetime64("1990-01-01"), np.datetime64("2022-12-01"))[: symbols * 2 : 2]
    dates = (first[:, None] + np.arange(days)).ravel().astype("datetime64[s]")
    names = np.repeat([f"S{n}" for n in range(symbols)], days)
    bars = pd.DataFrame({"symbol": names, "date": dates} | dict.fromkeys(NEEDED, 1.0))
    bars.to_parquet(tmp_path / "bars.parquet")
    assert refused(tmp_path / "bars.parquet").startswith(
        "5,000 symbols on 10,058 days, of which 300,000 have a bar, take more than the 50,000,000 places"
    )


@pytest.mark.slow
def test_a_symbol_that_is_not_among_a_hundred_thousand_is_said_so_in_seconds(tmp_path):
    names = [f"SYMBOL{n}" for n in range(100_000)]
    bars = pd.DataFrame({"symbol": names, "date": np.datetime64("2015-01-05", "s")} | dict.fromkeys(NEEDED, 1.0))
    bars.to_parquet(tmp_path / "bars.parquet")
    started = time.process_time()
    assert "SYMBOLX is not in the data" in refused(tmp_path / "bars.parquet", symbols=["SYMBOLX"])
    assert "and 99,995 more, and at least 60 are needed" in refused(tmp_path / "bars.parquet")
    assert time.process_time() - started < 5
