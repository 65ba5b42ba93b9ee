"""The page of many portfolios: return against turnover, a table that sorts, and how much the best owes to luck."""

import re

import numpy as np
import pytest

from hftraining.reports.frontier import Tried, frontier_chart, luck_of_many, write_frontier
from hftraining.runs.quantities import Estimate
from tests.browser import drawn, found_in, laid_out, needs_browser
from tests.reports.test_report import HOSTILE, figures_of, text_in

HELD = {"cagr": 0.11, "sharpe_ratio": 0.9, "turnover": 0.4, "costs": 0.002, "max_drawdown": -0.2}


def some(number: int) -> list[Tried]:
    """Portfolios of two kinds, the second one the run's own; the last one never traded."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(number):
        traded, lead = float(rng.uniform(1, 90)), float(rng.normal(0, 0.3))
        metrics = {"cagr": 0.12 - 0.001 * traded, "sharpe_ratio": 0.9 + lead, "turnover": traded, "costs": traded / 1e3}
        settings = {"kind": ("tilt", "top")[i % 2], "smoothing": float(i), "every": 5}
        rows.append(Tried(settings, metrics, i == 1, 0.01 * i, Estimate(lead, lead - 0.4, lead + 0.4)))
    return [*rows, Tried({"kind": "tilt"}, {"cagr": 0.0, "sharpe_ratio": float("nan"), "turnover": 0.0})]


def page_of(tmp_path, rows, **words) -> str:
    settings = {"name": "a run", "headline": "Three portfolios.", "sentences": ["Traded anew."]}
    return write_frontier(tmp_path, None, rows, HELD, **settings | words).read_text()


def test_every_portfolio_is_a_point_and_the_runs_own_is_ringed_and_holding_is_a_line():
    chart = frontier_chart(some(6), HELD)
    traces = {trace["name"]: trace for trace in chart["data"]}
    assert len(traces["tilt"]["x"]) == 4 and len(traces["top"]["x"]) == 3
    (own,) = traces["the run's own"]["x"]
    assert own == traces["top"]["x"][0] and traces["the run's own"]["marker"]["symbol"] == "circle-open"
    assert HELD["cagr"] in [shape["y0"] for shape in chart["layout"]["shapes"]]
    assert chart["layout"]["annotations"][0]["text"] == "buy and hold"


def test_the_front_joins_those_that_none_beats_in_return_and_turnover():
    points = [(1.0, 0.02), (2.0, 0.01), (3.0, 0.05), (3.0, 0.04), (9.0, 0.05), (10.0, 0.06)]
    chart = frontier_chart([Tried({}, {"turnover": x, "cagr": y}) for x, y in points], HELD)
    edge = next(trace for trace in chart["data"] if trace["name"].startswith("least turnover"))
    assert list(zip(edge["x"], edge["y"], strict=True)) == [(1.0, 0.02), (3.0, 0.05), (10.0, 0.06)]


@pytest.mark.parametrize(("turnovers", "scale"), [((1.0, 20.0), None), ((1.0, 40.0), "log"), ((0.0, 40.0), None)])
def test_turnovers_far_apart_are_drawn_on_a_logarithmic_axis(turnovers, scale):
    rows = [Tried({}, {"turnover": turnover, "cagr": 0.1}) for turnover in turnovers]
    assert frontier_chart(rows, HELD)["layout"]["xaxis"].get("type") == scale


def test_the_luck_of_the_best_agrees_with_a_simulation_of_as_many_equal_books():
    sharpes = [float(value) for value in np.random.default_rng(3).normal(0.5, 0.2, 200)]
    (said,) = luck_of_many([Tried({}, {"sharpe_ratio": value}) for value in sharpes])
    expected, mean, best = (
        float(x) for x in re.search(r"expected (.*?) above .* of (.*?); .* lies (.*?) ab", said).groups()
    )
    drawn_best = np.random.default_rng(4).normal(0.0, np.std(sharpes, ddof=1), (4000, 200)).max(axis=1).mean()
    assert said.startswith("200 portfolios were tried on the same days, and each counts as a trial.")
    assert expected == pytest.approx(drawn_best, abs=0.02)
    assert (mean, best) == pytest.approx((np.mean(sharpes), max(sharpes) - np.mean(sharpes)), abs=0.006)


def test_one_portfolio_has_no_luck_of_many():
    assert luck_of_many([Tried({}, {"sharpe_ratio": 0.5})]) == ["1 portfolio was tried on the same days."]


def test_the_table_has_the_settings_that_vary_and_the_best_sharpe_ratio_first(tmp_path):
    page = page_of(tmp_path, some(6))
    heads = [text_in(head) for head in re.findall(r'<th scope="col">(.*?)</th>', page)]
    assert heads[:5] == ["kind", "a year", "Sharpe", "turnover", "costs"]
    assert heads[-3:] == ["luck, p", "smoothing", "every"]
    rows = re.findall(r"<tr(?: class=\"chosen\")?><th scope=\"row\">.*?</tr>", page, re.S)
    sharpes = [re.findall(r'data-value="(.*?)"', row)[2] for row in rows]
    known = [float(text) for text in sharpes if text]
    assert len(rows) == 7 and known == sorted(known, reverse=True) and sharpes[-1] == ""
    (own,) = [row for row in rows if 'class="chosen"' in row]
    assert ">own</th>" in own and "[" in own
    assert "Three portfolios" in page and "Traded anew." in page and "return a year +11.0%" in text_in(page)
    assert set(figures_of(page)) == {"frontier-chart"}


def test_settings_from_outside_are_text(tmp_path):
    page = page_of(tmp_path, [Tried({HOSTILE: HOSTILE}, HELD, True)], headline=HOSTILE, name=HOSTILE)
    assert HOSTILE not in page
    assert "&lt;script>alert(1)" in figures_of(page)["frontier-chart"]["data"][1]["text"][0]


SORTED = """<!doctype html><body><iframe id="frame" src="portfolios.html" width="1200" height="3000"></iframe><script>
frame.onload = () => setTimeout(() => {
  const page = frame.contentDocument, heads = [...page.querySelectorAll(".sortable thead button")];
  const column = (place) => [...page.querySelectorAll(".sortable tbody tr")].map((r) => r.cells[place].dataset.value);
  const found = [];
  for (const name of ["turnover", "turnover", "kind", "Sharpe"]) {
    const place = heads.findIndex((head) => head.innerText === name);
    heads[place].click();
    found.push(column(place + 1));
  }
  document.body.dataset.found = JSON.stringify(found);
}, 500)</script>"""


@pytest.mark.slow
@needs_browser
def test_a_heading_sorts_the_table_both_ways_and_unknown_values_stay_below(tmp_path):
    page_of(tmp_path, some(6))
    (tmp_path / "frame.html").write_text(SORTED)
    falling, rising, kinds, sharpes = found_in(drawn(tmp_path / "frame.html", tmp_path))
    assert falling == sorted(falling, key=float, reverse=True) and rising == falling[::-1]
    assert kinds == sorted(kinds, reverse=True) and sharpes[-1] == ""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_the_portfolios_at_this_width_and_cuts_no_column_without_a_hint(tmp_path, width):
    page_of(tmp_path, some(60))
    found = laid_out(tmp_path / "portfolios.html", tmp_path, width)
    assert found["tables"] == 1 and dict(found["charts"])["frontier-chart"]
