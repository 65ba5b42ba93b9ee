"""`python -m hfinference paper RUN`: paper trading, day by day or over history."""

import argparse
from pathlib import Path

from hftraining.core.command import Answer, Commands
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "trade a run on paper after each close, or over history at full speed (--replay), on an account that is kept"
    parser = commands.add("paper", _paper, text, words=True)
    parser.epilog = (
        "Limits that halt the account are settings, too: risk.max_daily_loss=0.05 and so on; see docs/paper.md."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, of any kind of model")
    parser.add_argument("--replay", nargs=2, metavar=("START", "END"), help="trade these days at full speed")
    parser.add_argument("--once", action="store_true", help="only what is due now, as a cron job does")
    parser.add_argument("--broker", choices=("embedded", "alpaca"), default="embedded", help="where orders are filled")
    parser.add_argument("--journal", type=Path, metavar="FOLDER", help="of the account; by default in RUN/paper")
    parser.add_argument(
        "--stocks", nargs="+", default=(), metavar="STOCKS", help="an option of conf/stocks, or symbols"
    )
    parser.add_argument("--snapshot", metavar="ID", help="of Yahoo's bars; by default that of the run")
    parser.add_argument("--status", action="store_true", help="trade nothing: show how the account traded last stands")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the status as a page")
    parser.add_argument("--in-sample", action="store_true", help="allow a replay of days of the training")


def _paper(options: argparse.Namespace) -> Answer:
    from hfinference.live.page import check_place, write_status
    from hfinference.live.status import status_of
    from hftraining.core.errors import UserError

    if options.replay and options.once:
        raise UserError("--replay trades days that are past, and --once what is due now: give one of them")
    if options.html:
        check_place(options.html)
    if options.status:
        return _status(options)
    from hfinference.live.trader import LiveTrader  # with torch, which a status does not need

    trader = LiveTrader(
        options.run,
        stocks=options.stocks,
        snapshot=options.snapshot,
        words=options.words,
        in_sample=options.in_sample,
        journal=options.journal,
        broker=options.broker,
        say=print,
    )
    found = trader.start_paper_trading(tuple(options.replay) if options.replay else None, options.once)
    values = found.as_object()
    days, closed = values["days"], values["trade_count"]
    for note in found.notes:
        print(f"  note: {note}")
    if days["sessions"]:
        held = float(found.equity["buy_and_hold"].iloc[-1])
        print(f"{days['sessions']:,} sessions, {days['first']} to {days['last']}: equity {found.final_equity:,.2f} of "
              f"{found.capital:,.2f}; buying and holding has {held:,.2f}; {closed:,} closed trades")  # fmt: skip
    if found.difference is not None:
        print(f"the backtest of these days never differs by more than {found.difference:.6f}")
    print(f"journal: {found.folder}")
    page = options.html or (found.folder / "status.html" if options.replay else None)
    if page:
        print(f"page: {write_status(page, status_of(found.folder))}")
    return EXIT_DONE, values | {"page": page}


def _status(options: argparse.Namespace) -> Answer:
    from hfinference.live.latch import account_folder
    from hfinference.live.page import write_status
    from hfinference.live.status import status_of
    from hfinference.live.words import show

    found = status_of(account_folder(options.run, options.journal))
    show(found)
    if options.html:
        print(f"page: {write_status(options.html, found)}")
    return EXIT_DONE, found.as_object()
