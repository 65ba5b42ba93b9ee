"""compare.html: a comparison as a page, first what differs, then how the numbers changed."""

from pathlib import Path

from hftraining.reports.compare import Comparison
from hftraining.reports.compare_charts import COLORS, MOST_CURVES, growth_chart, interval_chart, probes_comparison
from hftraining.reports.compare_words import alarms, headline, legend, money_sentences, sentences
from hftraining.reports.deltas import shown_value
from hftraining.reports.page import write_page
from hftraining.reports.words import ALARMED, alarm_lines, money_line
from hftraining.runs.result import PERIODS

LINES_SHOWN = 40  # of changed bars, for each group


def write_comparison(folder: Path, outputs: Path | None, comparison: Comparison) -> Path:
    """Write compare.html, and plotly.min.js beside it, into a folder that exists; returns its path.

    outputs: the outputs folder that the page lies below; the pages there share one copy of Plotly's script.
    """
    differences = comparison.rows()
    points = [(f"{difference.group}, {PERIODS[period]}", days) for difference, period, days, _ in differences]
    figures = {
        "interval-chart": interval_chart(points, "difference of the annual Sharpe ratio"),
        "growth-chart": growth_chart(comparison.groups),
        "compare-probes": probes_comparison(comparison.groups, not comparison.losses_differ_in),
    }
    return write_page(
        folder / "compare.html",
        outputs,
        figures,
        title=headline(comparison),
        first=[*filter(None, [legend(comparison)]), *money_sentences(comparison)],
        sentences=sentences(comparison),
        alarms=alarms(comparison),
        alarmed=[run.label for run in comparison.runs if run.result and alarm_lines(run.result)],
        mark=ALARMED,
        money={run.label: money_line(run.result) for run in comparison.runs if run.result},
        comparison=comparison,
        metrics=comparison.metrics(MOST_CURVES),
        differences=differences,
        colors=COLORS,
        periods=PERIODS,
        lines_shown=LINES_SHOWN,
        shown_value=shown_value,
    )
