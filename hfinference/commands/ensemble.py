"""`python -m hfinference ensemble RUN RUN ...`: several runs joined into one model."""

import argparse
import sys
from pathlib import Path

from hftraining.core.command import Answer, Commands
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """Its name and arguments."""
    parser = commands.add(
        "ensemble", _ensemble, "join runs into one model, judged on days that none of them was trained on, and save it"
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or ensembles of such")
    parser.add_argument(
        "--weights",
        choices=("equal", "spread", "validation", "ridge"),
        default="equal",
        help="of the members: equal; by the inverse of their spread on the validation days, so that all move the mean "
        "alike; by the inverse of their validation loss; or by ridge regression of the validation days' outcomes on "
        "their medians. All but equal make the figures of these days in sample",
    )
    parser.add_argument("--name", help="of the folder; by default of the first run")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where ensembles/NAME/DATE_TIME goes")


def _ensemble(options: argparse.Namespace) -> Answer:
    from hfinference.joining import join
    from hftraining.reports.console import Console

    finished = join(options.runs, options.weights, options.name, options.outputs, sys.argv)
    Console(0, 0, 1).summary(finished.result, finished.folder)
    print(f"ensemble: {finished.folder}")
    return EXIT_DONE, {"folder": str(finished.folder), **finished.result.as_json()}
