"""A status in words: its sentence, its facts, and its tables, for the terminal and for the page."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.markup import escape

from hfinference.live.entries import Order, money, shares
from hfinference.live.status import Status
from hftraining.core.metrics import Unit
from hftraining.core.values import printable
from hftraining.reports.format import UNKNOWN, filled, number, plural
from hftraining.reports.terminal import plain_table, wide_console

MONEY = "{:,.2f}"
SHARES = "{:,.6g}"
MOST_ROWS = 12  # of a table on the terminal
ORDER = ("day", "symbol", "side", "shares", "status", "reason")


class Table(NamedTuple):
    """heads: one a column. rows: of texts as people read them, which a stranger may have written.

    total: how many there are in the journal, where the rows are the last ones.
    """

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    total: int = 0


def headline(status: Status) -> str:
    """What the account has earned beside buying and holding, in one sentence."""
    if not status.last:
        return f"nothing traded yet, {filled(MONEY, status.capital)} in cash"
    earned, sessions = status.equity / status.capital - 1.0, plural(len(status.marks_T), "session")
    said = f"{number(earned, Unit.CHANGE)} in {sessions}"
    return said if status.held is None else (
        f"{said}; buying and holding {number(status.held / status.capital - 1.0, Unit.CHANGE)}"
    )  # fmt: skip


def facts_of(status: Status) -> list[tuple[str, str]]:
    """What is known in a line each: name and text."""
    last, halted = status.last, status.halted
    found = [("state", status.state + (", a trader runs" if status.is_running else ", no trader runs"))]
    if status.replay:
        found.append(("replay", f"of {status.replay[0]} to {status.replay[1]}"))
    found += [("in sample", status.in_sample.removeprefix("in sample: "))] if status.in_sample else []
    found += [("note", note) for note in status.notes]
    if halted:
        found.append((f"halted ({halted.name})", f"since {_time(halted.at)}: {halted.reason}"))
    if status.flatten is not None:
        found.append(("flatten", f"closing orders only: {status.flatten}"))
    if last:
        reason = f" ({last.reason})" if last.reason else ""
        found.append(("last decision", f"at the close of {last.day}: {last.decision}{reason}"))
    if status.missed:
        days = ", ".join(mark.day for mark in status.missed[-5:])
        found.append(("missed", f"{plural(len(status.missed), 'session')}, the last {days}"))
    if status.behind:
        found.append(("behind", f"{plural(status.behind, 'session')} closed since, not traded yet"))
    if status.next_session:
        opens = f", opens {status.next_open:%Y-%m-%d %H:%M} UTC" if status.next_open else ""
        found.append(("next session", f"{status.next_session}{opens}"))
    return found


def show(status: Status) -> None:
    """Print a status on the terminal."""
    console = wide_console()
    console.print(f"paper account {_safe(str(status.folder))}: {headline(status)}")
    for name, text in facts_of(status):
        console.print(f"  {_safe(name)}: {_safe(text)}")
    table = plain_table("", "equity", "return", "largest fall", "Sharpe")
    ours, theirs = status.metrics(), status.metrics(hold=True)
    rows = (("account", status.equity, ours), ("buy and hold", status.held, theirs))
    for name, value, found in rows:
        table.add_row(
            name, filled(MONEY, value), number(found.get("total_return"), Unit.CHANGE),
            number(found.get("max_drawdown"), Unit.SHARE), number(found.get("sharpe_ratio"), Unit.RATIO),
        )  # fmt: skip
    table.add_row("cash", filled(MONEY, status.cash))
    console.print(table)
    for title, heads, lines, total in tables_of(status):
        if not lines:
            continue
        console.print(f"\n{title}")
        table = plain_table(*heads)
        for line in lines[:MOST_ROWS]:
            table.add_row(*map(_safe, line))
        if len(lines) > MOST_ROWS:
            table.add_row(f"... {max(total, len(lines)) - MOST_ROWS:,} more")
        console.print(table)


def _safe(text: str) -> str:
    """Text that neither rich nor a terminal acts upon, whoever wrote it."""
    return escape(printable(text))


def tables_of(status: Status) -> list[Table]:
    """The tables of a status, the newest row first, without columns that say nothing in any row."""
    tables = [
        _positions(status),
        Table("Orders working", ORDER, [_order(order) for order in status.working]),
        Table("Orders of the last session", ORDER, [_order(o) for o in status.decided if o not in status.working]),
        _fills(status),
        _adjustments(status),
        Table(
            "Sessions without trading",
            ("session", "decision", "reason"),
            [(m.day, m.decision, m.reason) for m in reversed(status.marks_T) if m.decision != "traded"],
        ),
        _halts(status),
    ]
    return [_without_empty(table) for table in tables]


def _without_empty(table: Table) -> Table:
    kept = [n for n in range(len(table.heads)) if not table.rows or any(row[n] for row in table.rows)]
    rows = [tuple(row[n] for n in kept) for row in table.rows]
    return Table(table.title, tuple(table.heads[n] for n in kept), rows, table.total)


def _positions(status: Status) -> Table:
    rows = [
        (p.symbol, filled(SHARES, p.shares), filled(MONEY, p.price), filled(MONEY, p.value),
         number(p.weight, Unit.SHARE))
        for p in status.positions
    ]  # fmt: skip
    return Table("Positions", ("symbol", "shares", "price", "value", "weight"), rows)


def _order(order: Order) -> tuple[str, ...]:
    return (order.day, order.symbol, order.side, filled(SHARES, shares(order.shares_nano)),
            order.status.replace("_", " "), order.reason)  # fmt: skip


def _fills(status: Status) -> Table:
    rows = [
        (f.day, f.symbol, filled("{:+,.6g}", shares(f.shares_nano)), filled(MONEY, money(f.price_micro)),
         filled(MONEY, money(f.value)), filled(MONEY, money(f.commission_micro)), f.reason.replace("_", " "))
        for f in reversed(status.fills)
    ]  # fmt: skip
    return Table("Fills", ("day", "symbol", "shares", "price", "value", "commission", "reason"), rows, status.n_fills)


def _adjustments(status: Status) -> Table:
    rows = [
        (a.day, a.symbol or UNKNOWN, filled("{:+,.6g}", shares(a.shares_nano)),
         filled("{:+,.2f}", money(a.cash_micro)), a.reason)
        for a in reversed(status.adjustments)
    ]  # fmt: skip
    return Table("Other changes", ("day", "symbol", "shares", "cash", "reason"), rows, status.n_adjustments)


def _halts(status: Status) -> Table:
    rows = [
        (_time(h.at), h.day or UNKNOWN, h.name, h.reason, f"{_time(h.lifted_at)}, {h.how}" if h.lifted_at else "")
        for h in reversed(status.halts)
    ]
    return Table("Halts", ("since", "session", "name", "reason", "lifted"), rows)


def _time(at: str) -> str:
    """2024-05-03 20:01:07, in UTC, of an ISO time."""
    return at[:19].replace("T", " ")
