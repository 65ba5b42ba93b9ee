"""Where a profit comes from: by month, by symbol, by costs; and how a page shows it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.reports.breakdown import SYMBOLS_SHOWN, Booked, cost_rows, symbol_rows, years_of
from hftraining.reports.format import tone
from hftraining.runs.result import AtCosts, PeriodResult
from tests.browser import laid_out, needs_browser
from tests.reports.test_report import a_result_with_evidence, a_run, a_run_with_evidence, html_of, some_result, text_in


def test_months_and_years_grow_from_the_close_before_them_and_the_first_from_the_capital():
    dates = pd.bdate_range("2019-11-15", "2021-02-10")
    rng = np.random.default_rng(2)
    equity, held = (1000.0 * np.cumprod(1 + rng.normal(0, 0.01, len(dates))) for _ in range(2))
    frame = pd.DataFrame({"window": "valid", "date": dates, "equity": equity, "buy_and_hold": held})
    (period, years), *others = years_of(frame, 1000.0).items()
    assert period == "valid" and not others and [year.year for year in years] == [2019, 2020, 2021]
    assert list(years[0].months) == [11, 12] and list(years[2].months) == [1, 2]
    before, at_new_year = 1000.0, 1000.0
    for year in years:
        for month, growth in year.months.items():
            end = max(i for i, day in enumerate(dates) if (day.year, day.month) == (year.year, month))
            assert growth.ours == pytest.approx(equity[end] / before - 1)
            before = equity[end]
        assert year.whole.ours == pytest.approx(before / at_new_year - 1)
        at_new_year = before
    product = np.prod([1 + growth.held for year in years for growth in year.months.values()])
    assert product == pytest.approx(held[-1] / 1000.0)


def test_an_account_that_is_gone_has_no_return_and_a_page_shows_a_dash(tmp_path):
    dates = pd.to_datetime(["2020-01-31", "2020-02-28", "2020-03-31"])
    frame = pd.DataFrame({"window": "valid", "date": dates, "equity": [10.0, 0.0, 0.0], "buy_and_hold": 10.0})
    months = years_of(frame, 10.0)["valid"][0].months
    assert months[2].ours == -1.0 and np.isnan(months[3].ours)


def test_the_trades_of_a_symbol_are_added_up_by_period_and_the_best_of_the_last_period_stands_first():
    trades = pd.DataFrame(
        [("A", "valid", 1.0, 5.0), ("A", "valid", 2.0, -9.0), ("B", "test", 0.5, 3.0), ("A", "test", 0.25, 1.0)],
        columns=["symbol", "window", "costs", "pnl"],
    )
    assert symbol_rows(trades) == (
        ["valid", "test"],
        [("B", [Booked(), Booked(1, 0.5, 3.0)]), ("A", [Booked(2, 3.0, -4.0), Booked(1, 0.25, 1.0)])],
    )


def test_the_costs_have_a_row_for_each_level_and_end_with_those_of_the_run():
    at = [AtCosts(0.0, 0.4, 1.5), AtCosts(10.0, 0.1, 0.3)]
    period = PeriodResult(profit={"total_return": -0.076, "sharpe_ratio": -0.27}, at_costs=at)
    rows = cost_rows({"valid": period}, 0.001, 0.0005)
    assert [(label, found[0].total_return) for label, _, found in rows] == [
        ("none (gross)", 0.4),
        ("10 bp", 0.1),
        ("15 bp, as set (net)", -0.076),
    ]
    assert cost_rows({"valid": PeriodResult()}, 0.001, 0.0) == []


def row_of(page: str, table: str, head: str) -> list[str]:
    """The cells of the row that begins so, in the tables of a class."""
    found = re.findall(rf'<table class="{table}">.*?</table>', page, re.S)
    rows = [row for part in found for row in re.findall(r"<tr>(.*?)</tr>", part, re.S)]
    return next(re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in rows if f">{head}<" in row)


def test_the_page_of_an_old_run_has_months_and_symbols_and_leaves_out_what_it_does_not_know(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    for heading in ("By month", "By symbol", "Metrics"):
        assert f"<h2>{heading}</h2>" in page
    assert "What costs take" not in page and "How trades ended" in page
    assert page.index("How trades ended") < page.index("By month")
    january = row_of(page, "months", "2020")[0]  # 1000 became 880; buy and hold stayed at 1000
    assert text_in(january) == "\N{MINUS SIGN}12.0+0.0" and '<span class="loss">' in january
    trades, gross, costs, net = map(text_in, row_of(page, "symbols", "S0"))
    assert (trades, gross, costs, net) == ("1", "+0", "0", "+0")


def test_of_many_symbols_the_best_and_the_worst_are_shown(tmp_path):
    page = html_of(a_run(tmp_path, some_result(), trades=100))
    shown = re.findall(r'<tr><th scope="row">(S\d+|&lt;script)', page)
    assert len(shown) == 2 * SYMBOLS_SHOWN and f"{100 - 2 * SYMBOLS_SHOWN} symbols in between" in page


def test_each_row_has_its_own_lead_over_buy_and_hold_and_the_models_lead_over_it(tmp_path):
    result = a_result_with_evidence()
    result["test"]["baselines"]["trend"]["lead"] = {"value": -1.5, "low": -2.0, "high": -1.0}
    page = html_of(a_run(tmp_path, result))
    trend = [text_in(text) for text in re.findall(r'data-metric="test.baselines.trend.\w+">(.*?)</td>', page)]
    assert trend[-2:] == [
        "+0.25 [\N{MINUS SIGN}0.50, 1.00]",
        "\N{MINUS SIGN}1.50 [\N{MINUS SIGN}2.00, \N{MINUS SIGN}1.00]",
    ]
    leads = dict(re.findall(r'data-metric="valid.baselines.(\w+).lead">(.*?)</td>', page))
    # An old result: the Sharpe ratios are known, and the interval to buy and hold alone.
    assert leads["trend"] == "0.00" and text_in(leads["buy_and_hold"]).endswith("[\N{MINUS SIGN}1.00, 0.80]")
    assert "the model&rsquo;s lead</th>" in page and "less buy and hold&rsquo;s</th>" in page


def test_a_loss_and_a_gain_are_told_by_a_class_of_their_own_and_nothing_is_neither():
    assert [tone(value) for value in (0.1, -0.1, 0.0, None, float("nan"))] == ["gain", "loss", "", "", ""]


def test_the_metrics_of_a_losing_period_are_marked(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    assert '<td class="ours loss" data-metric="test.profit.total_return">' in page
    assert '<td class="ours gain" data-metric="valid.profit.total_return">' in page
    assert '<td class="ours" data-metric="valid.profit.max_drawdown">' in page  # is never above zero
    assert '<p class="big loss">' in page


def test_luck_that_picks_the_stocks_is_explained_where_it_was_tried(tmp_path):
    page = html_of(a_run_with_evidence(tmp_path))
    assert "deals these positions to other stocks at random" in page
    result = a_result_with_evidence()
    for name in ("valid", "test"):
        result[name]["null"] = {"p": 0.3, "draws": 20}
    assert "deals these positions" not in html_of(a_run(tmp_path / "one", result))


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_cuts_no_column_of_the_report_without_a_hint(tmp_path, width):
    folder = a_run_with_evidence(tmp_path / "outputs")
    found = laid_out(Path(html_path(folder)), tmp_path, width)
    assert found["tables"] > 8 and (found["out"] > 0) == (width == 400)


def html_path(folder: Path) -> Path:
    html_of(folder)
    return folder / "report.html"
