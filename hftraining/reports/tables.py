"""The numbers and tables of a report: percent where people expect percent, a dash for what is not known."""

import math
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from hftraining.reports.charts import WINDOWS
from hftraining.runs.record import dig

if TYPE_CHECKING:
    import pandas as pd

TRADES_SHOWN = 200  # at each end
DASH = "&ndash;"


def percent(value: Any) -> str:
    """A signed change: +4.2%."""
    return _shown(value, "{:+.1%}")


def share(value: Any) -> str:
    """A part of something: 42.0%."""
    return _shown(value, "{:.1%}")


def fixed(value: Any, digits: int = 2) -> str:
    """A plain number with a set number of digits."""
    return _shown(value, f"{{:,.{digits}f}}")


def count(value: Any) -> str:
    """A whole number, in groups of three."""
    return _shown(value, "{:,.0f}")


METRICS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("total_return", "Total return", percent),
    ("cagr", "Return a year", percent),
    ("volatility", "Volatility a year", share),
    ("sharpe_ratio", "Sharpe ratio", fixed),
    ("sortino_ratio", "Sortino ratio", fixed),
    ("calmar_ratio", "Calmar ratio", fixed),
    ("max_drawdown", "Deepest drawdown", percent),
    ("win_rate", "Trades won", share),
    ("trade_count", "Closed trades", count),
    ("exposure", "Mean exposure", share),
    ("turnover", "Turnover a year", lambda value: _shown(value, "{:,.1f}&times;")),
    ("costs", "Costs, of capital", share),
)
FORECASTS = (("model", "Model"), ("nothing_changes", "Nothing changes"), ("unconditional", "Unconditional"))
LOSS_DAYS = {"train": "Training days", "valid": "Validation days"}


def metrics_table(result: dict) -> str:
    """Every metric of both windows, each beside buy and hold."""
    windows = [window for window in WINDOWS if dig(result, window, "profit")]
    if not windows:
        return ""
    rows = []
    for key, label, show in METRICS:
        cells = []
        for window in windows:
            for path, kind in ((("profit",), "ours"), (("baselines", "buy_and_hold"), "theirs")):
                name = ".".join((window, *path, key))
                cells.append(f'<td class="{kind}" data-metric="{name}">{show(dig(result, window, *path, key))}</td>')
        rows.append(f"<tr><th scope='row'>{label}</th>{''.join(cells)}</tr>")
    over = "".join(f'<th colspan="2" scope="colgroup">{WINDOWS[window].capitalize()}</th>' for window in windows)
    under = '<th scope="col">model</th><th scope="col">buy and hold</th>' * len(windows)
    return (
        '<section><h2>Metrics</h2><div class="scroll"><table class="metrics"><thead>'
        f"<tr><th></th>{over}</tr><tr><th></th>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def loss_table(result: dict) -> str:
    """The forecast loss beside that of forecasts which know nothing of the day."""
    days = [key for key in LOSS_DAYS if dig(result, "loss", key)]
    if not days:
        return ""
    rows = []
    for name, label in FORECASTS:
        cells = "".join(
            f'<td class="{"ours" if name == "model" else "theirs"}" data-metric="loss.{key}.{name}">'
            f"{fixed(dig(result, 'loss', key, name), 4)}</td>"
            for key in days
        )
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{LOSS_DAYS[key]}</th>' for key in days)
    return (
        f'<section class="narrow"><h2>Forecast loss</h2><table><thead><tr><th></th>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><p class="quiet">Lower is better. Nothing changes: a forecast of no '
        "move. Unconditional: the same forecast every day, that of the training days as a whole.</p></section>"
    )


def trades_table(trades: "pd.DataFrame | None") -> str:
    """How trades ended, and the first and last of them."""
    if trades is None:
        return ""
    if trades.empty:
        return '<section><h2>Trades</h2><p class="quiet">None.</p></section>'
    windows = [window for window in WINDOWS if (trades["window"] == window).any()]
    parts = [trades] if len(trades) <= 2 * TRADES_SHOWN else [trades.head(TRADES_SHOWN), trades.tail(TRADES_SHOWN)]
    left_out = len(trades) - sum(len(part) for part in parts)
    gap = f'<tr class="gap"><td colspan="10">{left_out:,} trades in between are in trades.parquet</td></tr>'
    body = gap.join("".join(_trade_row(row) for row in part.to_dict("records")) for part in parts)
    heads = ("Symbol", "Side", "Shares", "Entry", "at", "Exit", "at", "Costs", "Profit", "Reason")
    left = {"Symbol", "Side", "Entry", "Exit", "Reason"}
    head = "".join(f'<th scope="col"{_left(name in left)}>{name}</th>' for name in heads)
    return (
        f'<section class="long"><h2>Trades</h2>{_exits(trades, windows)}'
        f"<details><summary>{_summary(len(trades), left_out)}</summary>"
        f'<div class="trades" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        "</details></section>"
    )


def _exits(trades: "pd.DataFrame", windows: list[str]) -> str:
    """One row a way out: how many trades took it, and what they earned together."""
    rows = []
    for reason, tally in trades["exit_reason"].value_counts().items():
        cells = ""
        for window in windows:
            ended = trades[(trades["exit_reason"] == reason) & (trades["window"] == window)]
            cells += f'<td>{count(len(ended))}</td><td class="theirs">{_shown(ended["pnl"].sum(), "{:+,.0f}")}</td>'
        rows.append((tally, f'<tr><th scope="row">{escape(str(reason).replace("_", " "))}</th>{cells}</tr>'))
    over = "".join(f'<th colspan="2" scope="colgroup">{WINDOWS[window].capitalize()}</th>' for window in windows)
    under = '<th scope="col">trades</th><th scope="col">profit</th>' * len(windows)
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{over}</tr><tr><th>How they ended</th>{under}</tr></thead>'
        f"<tbody>{''.join(row for _, row in rows)}</tbody></table></div>"
    )


def _summary(total: int, left_out: int) -> str:
    if left_out:
        return f"The first and last {TRADES_SHOWN} of {total:,} trades"
    return f"All {total:,} trades" if total > 1 else "The one trade"


def _trade_row(trade: dict) -> str:
    cells: Iterable[tuple[str, bool]] = (
        (escape(str(trade["symbol"])), True),
        (escape(_side(trade["side"])), True),
        (_shown(trade["shares"], "{:,.4g}" if abs(trade["shares"] or 0) < 1000 else "{:,.0f}"), False),
        (_day(trade["entry_date"]), True),
        (fixed(trade["entry_price"]), False),
        (_day(trade["exit_date"]), True),
        (fixed(trade["exit_price"]), False),
        (fixed(trade["costs"]), False),
        (_shown(trade["pnl"], "{:+,.2f}"), False),
        (escape(str(trade["exit_reason"]).replace("_", " ")), True),
    )
    return f"<tr>{''.join(f'<td{_left(left)}>{text}</td>' for text, left in cells)}</tr>"


def _left(left: bool) -> str:
    return ' class="left"' if left else ""


def _side(side: Any) -> str:
    return side if isinstance(side, str) else "long" if side > 0 else "short"


def _day(day: Any) -> str:
    text = str(day)[:10]
    return DASH if text in ("None", "NaT", "nan") else escape(text)


def _shown(value: Any, pattern: str) -> str:
    """The number with a true minus sign, or a dash for null, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return DASH
    text = pattern.format(value)
    # A rounded-away loss would otherwise read as -0.0%.
    if float(value) < 0 and not any(digit in text for digit in "123456789"):
        text = pattern.format(0.0)
    return text.replace("-", "&minus;")
