"""compare.html: the comparison as a page, what differed on top, what that did to the numbers below."""

from pathlib import Path

from hftraining.reports.charts import Figure
from hftraining.reports.compare import Comparison
from hftraining.reports.compare_charts import COLORS, MOST_CURVES, growth_chart, interval_chart, probes_comparison
from hftraining.reports.compare_words import headline, sentences
from hftraining.reports.deltas import shown_value
from hftraining.reports.page import write_page
from hftraining.runs.result import PERIODS

LINES_SHOWN = 40  # of changed bars, for each group


def write_comparison(folder: Path, outputs: Path | None, comparison: Comparison) -> Path:
    """Write compare.html, and plotly.min.js beside it, into a folder that exists; returns its path.

    outputs: the outputs folder that it lies below, to share Plotly's script with.
    """
    differences = comparison.rows()
    points = [(f"{difference.group}, {PERIODS[window]}", days) for difference, window, days, _ in differences]
    figures: dict[str, Figure | None] = {
        "interval-chart": interval_chart(points, "difference of the annual Sharpe ratio"),
        "growth-chart": growth_chart(comparison.groups),
        "compare-probes": probes_comparison(comparison.groups, not comparison.losses_differ_in),
    }
    path = folder / "compare.html"
    write_page(
        path,
        outputs,
        "compare.html",
        title=headline(comparison),
        figures={name: figure for name, figure in figures.items() if figure},
        sentences=sentences(comparison),
        comparison=comparison,
        metrics=comparison.metrics(MOST_CURVES),
        differences=differences,
        colors=COLORS,
        windows=PERIODS,
        lines_shown=LINES_SHOWN,
        shown_value=shown_value,
    )
    return path
