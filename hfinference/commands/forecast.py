"""`python -m hfinference forecast RUN`: the next session's forecasts, weights and orders."""

import argparse
from pathlib import Path

from hftraining.core.command import Answer, Commands
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "the next session of a run: forecasts, scores, target weights, and the orders that get there"
    parser = commands.add("forecast", _forecast, text, words=True)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, of any kind of model")
    parser.add_argument("--date", metavar="DAY", help="of the close; by default the last session there is")
    parser.add_argument("--stocks", nargs="+", default=(), metavar="STOCKS", help="of conf/stocks, or symbols")
    parser.add_argument("--snapshot", metavar="ID", help="of Yahoo's bars; by default that of the run")
    parser.add_argument("--account", type=Path, metavar="FILE", help='{"cash": 2500, "positions": {"AAPL": 10}}')
    parser.add_argument("--start", metavar="DAY", help="where the portfolio's book begins; see docs/inference.md")
    parser.add_argument("--in-sample", action="store_true", help="allow a day of the training")
    parser.add_argument("--anew", action="store_true", help="forecast every session, without those in the cache")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--rows", type=int, default=40, metavar="N", help="of the table on the terminal; 0: all")


def _forecast(options: argparse.Namespace) -> Answer:
    from hfinference.forecast import Holding, forecast_next
    from hfinference.talk import forecast_table
    from hftraining.core.errors import UserError
    from hftraining.core.files import replacing

    if options.rows < 0:
        raise UserError(f"--rows {options.rows} is less than 0")
    if options.csv and options.parquet and options.csv.absolute() == options.parquet.absolute():
        raise UserError(f"--csv and --parquet both name {options.csv}: one would replace the other")
    for path in (options.csv, options.parquet):
        if path and not path.absolute().parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}")
        if path and path.is_dir():
            raise UserError(f"{path} is a folder: name a file in it")
    account = Holding.read(options.account) if options.account else None
    found = forecast_next(
        options.run,
        options.date,
        stocks=options.stocks,
        snapshot=options.snapshot,
        words=options.words,
        start=options.start,
        account=account,
        in_sample=options.in_sample,
        keep=not options.anew,
    )
    forecast_table(found.table, options.rows, found.relative)
    session = found.session or "the next session"
    count = int((found.table["order"] != 0.0).sum())
    print(f"decided at the close of {found.day} for the open of {session}: {count} orders, estimated to cost "
          f"{found.table['cost'].sum():,.2f}; the account has {found.equity:,.2f}")  # fmt: skip
    for note in found.notes:
        print(f"  note: {note}")
    for path, write in ((options.csv, found.table.to_csv), (options.parquet, found.table.to_parquet)):
        if path:
            with replacing(path) as temporary:
                write(temporary)
            print(path)
    return EXIT_DONE, found.as_object()
