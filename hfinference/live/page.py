"""The status of a paper account as a page: one file, for a browser on a desk or a phone."""

from pathlib import Path

from hfinference.live.status import Status
from hfinference.live.words import MONEY, facts_of, headline, tables_of
from hftraining.core.errors import UserError
from hftraining.reports.charts import Figure, base_layout, level_line, line
from hftraining.reports.format import filled
from hftraining.reports.page import write_whole_page

TEXTS = frozenset(
    {"day", "symbol", "side", "status", "reason", "since", "session", "name", "lifted", "decision"}
)  # not numbers
EQUITY_CHART = "equity-chart"
BEGIN = b"<!doctype html"  # of every page


def check_place(path: Path) -> None:
    """Raise UserError where no page can be written."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file, such as {path / 'status.html'}")
    if path.is_file() and not path.read_bytes()[: len(BEGIN)].lower().startswith(BEGIN):
        raise UserError(f"{path} is there, and no page, which alone would be replaced: name another file")


def write_status(path: Path, status: Status) -> Path:
    """Write the page of a status, in place of an earlier one; returns the path. Raises UserError as check_place."""
    check_place(path)
    alarms = [status.in_sample] if status.in_sample else []
    alarms += [f"Halted ({status.halted.name}): {status.halted.reason}"] if status.halted else []
    return write_whole_page(
        path,
        "paper.html",
        {EQUITY_CHART: _equity_chart(status)},
        title=f"Paper account {status.folder.name}",
        headline=headline(status),
        status=status,
        alarms=alarms,
        facts=[(name, text) for name, text in facts_of(status) if not name.startswith(("halted", "in sample"))],
        equity=filled(MONEY, status.equity),
        held=filled(MONEY, status.held),
        cash=filled(MONEY, status.cash),
        ours=status.metrics(),
        theirs=status.metrics(hold=True),
        tables=tables_of(status),
        texts=TEXTS,
    )


def _equity_chart(status: Status) -> Figure | None:
    """The account and buy and hold at each close; None before the second."""
    if len(status.marks_T) < 2:
        return None
    days = [mark.day for mark in status.marks_T]
    data = [line("buy and hold", days, status.hold_T, "--benchmark", "%{y:,.2f}")] if status.held is not None else []
    data.append(line("account", days, status.equity_T, "--model", "%{y:,.2f}"))
    layout = base_layout()
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"tickformat": ",.0f"}
    layout["legend"] |= {"traceorder": "reversed"}
    layout["shapes"].append(level_line(status.capital))
    return {"data": data, "layout": layout}
