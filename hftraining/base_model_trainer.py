"""BaseModelTrainer: one base model on many stocks, then a specialist for each of them; and its command.

python base_model_trainer.py --base-stocks AAPL MSFT IBM --base-steps 600 --finetune-epochs 10 --data sample
"""

import os
import sys

# Run as a script, its own folder would come first on the path; the package lies in the folder above.
if __name__ in ("__main__", "__mp_main__") and not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as train.py does, before torch is loaded

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftraining.core.command import Parser, positive, run_command
from hftraining.core.errors import EXIT_DONE
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.compose import composed, override
from hftraining.experiment.config import ExperimentConfig, load_config, typed_config
from hftraining.experiment.finetune import run
from hftraining.experiment.finished import finished_result
from hftraining.experiment.ground import steps_of_epochs
from hftraining.experiment.inherit import inherit, signature_of, with_precision_of
from hftraining.experiment.processes import Outcome, attempt, exit_code, report, run_all
from hftraining.model.base import Forecaster
from hftraining.runs.folder import runs_in
from hftraining.runs.record import read_manifest

DATA = "tech10"  # ten technology stocks through yfinance


class BaseModelTrainer:
    """Trains a base model on many stocks and fine-tunes it for one at a time, like train.py.

    >>> trainer = BaseModelTrainer(base_stocks=["AAPL", "MSFT", "IBM"], data="sample")
    >>> model, checkpoint = trainer.train_base_model(max_steps=600, batch_size=16)
    >>> specialist, path = trainer.finetune_for_stock("AAPL", checkpoint, num_epochs=10)

    base_stocks: what the base model learns from; none: all stocks of the data. data: an option of the stocks group.
    output_dir: by default outputs below the working folder, or beside hftraining/ if that is the working folder.
    settings, finetune_settings: more fields for the base run and for each fine-tune, as on train.py's command line.
    resume: use finished runs of the same config, and resume interrupted ones.
    Raises ConfigError or MarketDataError for what the user can mend.
    """

    def __init__(
        self,
        base_stocks: Sequence[str] = (),
        *,
        data: str = DATA,
        output_dir: Path | str | None = None,
        settings: Sequence[str] = (),
        finetune_settings: Sequence[str] = (),
        resume: bool = False,
    ):
        self.base_stocks, self.data, self.resume = list(base_stocks), data, resume
        self.output_dir = Path(output_dir) if output_dir else default_outputs()
        self.settings, self.finetune_settings = list(settings), list(finetune_settings)

    def train_base_model(self, max_steps: int | None = None, batch_size: int | None = None) -> tuple[Forecaster, Path]:
        """Train the base model; returns it and its run folder, from which a fine-tune starts."""
        return trained(self.base_config(max_steps, batch_size))

    def finetune_for_stock(
        self, stock_symbol: str, base_checkpoint_path: Path | str, num_epochs: int | None = None
    ) -> tuple[Forecaster, Path]:
        """Try the methods of conf/training/finetune.yaml on one stock; returns the recommended model and the folder.

        The recommended model may be the base's; result.json and report.html in the folder say why. num_epochs: passes
        over the stock's training bars; none: the steps of finetune.yaml.
        """
        return trained(self.finetune_config(stock_symbol, base_checkpoint_path, num_epochs))

    def base_config(self, max_steps: int | None = None, batch_size: int | None = None) -> ExperimentConfig:
        """The config of the base run, or of the one to resume."""
        outputs = {"output_dir": str(self.output_dir), "stocks.snapshots": str(self.output_dir / "snapshots")}
        settings = [
            *given({"stocks": self.data, "stocks.symbols": self.base_stocks or None, **outputs}),
            "objective.relative=none",  # a specialist trades its stock alone, which needs absolute returns
            *self.settings,
            *given({"training.max_steps": max_steps, "training.batch_size": batch_size}),
        ]
        config = typed_config(composed(settings))
        return self._to_resume(config, "single" if len(config.stocks.symbols) == 1 else "base", None)

    def finetune_config(
        self,
        symbol: str,
        base: Path | str,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
    ) -> ExperimentConfig:
        """The config of one fine-tune, or of the one to resume."""
        settings = [
            *given({"init_from": str(base), "stocks.symbols": [symbol], "output_dir": str(self.output_dir)}),
            *self.finetune_settings,
            *given({"training.max_steps": steps, "training.batch_size": batch_size}),
        ]
        config, base_run = inherit(composed(settings), settings), BaseRun.open(base)
        if epochs is not None:
            config.training.max_steps = steps_of_epochs(config, base_run, epochs)
        return self._to_resume(config, "finetuned", base_run)

    def _to_resume(self, config: ExperimentConfig, kind: str, base: BaseRun | None) -> ExperimentConfig:
        """The config or, with resume, that of the newest run with the same signature, to be resumed."""
        if not self.resume:
            return config
        for folder in reversed(runs_in(self.output_dir / kind / config.name)):
            if read_manifest(folder)["signature"] == signature_of(with_precision_of(config, folder), base)[1]:
                earlier = load_config(folder / "config.yaml")
                if earlier.stocks.path != config.stocks.path:  # the signature does not say which bars
                    continue
                earlier.resume = str(folder)
                return earlier
        return config


def trained(config: ExperimentConfig) -> tuple[Forecaster, Path]:
    """Run a config unless its run is already finished; returns the trained or recommended model and the run folder."""
    folder = Path(config.resume or "")
    if not (config.resume and finished_result(folder, config.evidence)):
        folder = run(config).folder
    return Forecaster.load(folder / "model"), folder


def default_outputs() -> Path:
    """outputs below the working folder; inside hftraining/, outputs beside it, so that the project has one ledger."""
    inside = Path.cwd() == Path(__file__).resolve().parent
    return Path("..", "outputs") if inside else Path("outputs")


def given(fields: Mapping[str, Any]) -> list[str]:
    """Overrides of the fields that have a value."""
    return [override(name, value) for name, value in fields.items() if value is not None]


def parser_of(description: str, default_data: str) -> Parser:
    """The options that this command shares with train_with_profit.py."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-stocks", nargs="+", metavar="SYMBOL", help="what the base model learns from")
    parser.add_argument("--base-steps", type=positive, metavar="N", help="steps of the base model's training")
    parser.add_argument("--finetune-epochs", type=positive, metavar="N", help="passes over a stock's training bars")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="windows a step, in every training")
    parser.add_argument("--data", metavar="STOCKS", help=f"an option of conf/stocks, e.g. sample ({default_data})")
    parser.add_argument("--model", metavar="MODEL", help="an option of conf/model: tiny, small, base, large")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="fine-tunes to try: full head lora scratch")
    parser.add_argument("--seed", type=int, metavar="N", help="of every training")
    parser.add_argument("--threads", type=positive, metavar="N", help="of each process")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="stocks at a time, in a process each")
    parser.add_argument("--resume", action="store_true", help="skip finished runs, resume interrupted ones")
    parser.add_argument("--output-dir", type=Path, metavar="FOLDER", help="where runs go (outputs)")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="more fields, as for train.py")
    parser.add_argument("--finetune-set", nargs="+", default=[], metavar="FIELD=VALUE", help="the same of fine-tunes")
    parser.add_argument("--json", action="store_true", help="the last line printed is one JSON object")
    return parser


def trainer_of(options: argparse.Namespace, data: str) -> BaseModelTrainer:
    """The trainer that the shared options describe."""
    everywhere = given({"seed": options.seed, "training.threads": options.threads})
    return BaseModelTrainer(
        options.base_stocks or (),
        data=options.data or data,
        output_dir=options.output_dir,
        settings=[*given({"model": options.model}), *options.set, *everywhere],
        finetune_settings=[*options.finetune_set, *everywhere, *given({"training.methods": options.methods})],
        resume=options.resume,
    )


def train_and_specialise(
    trainer: BaseModelTrainer, symbols: Sequence[str], base: Path | None, options: argparse.Namespace, steps: int | None
) -> int:
    """Train the base model unless one is given, fine-tune it for each symbol, print; returns the exit code.

    symbols: none means those of the base model.
    """
    outcomes: list[Outcome] = []
    if base is None:
        outcomes = [attempt("base", trainer.base_config(options.base_steps, options.batch_size), sys.argv)]
        if outcomes[0].exit_code != EXIT_DONE:
            return conclude(outcomes, options)
        base = Path(str(outcomes[0].folder))
    configs = {
        symbol: trainer.finetune_config(symbol, base, options.finetune_epochs, steps, options.batch_size)
        for symbol in dict.fromkeys(symbols or BaseRun.open(base).forecaster.symbols)
    }
    return conclude(outcomes + run_all(configs, options.jobs, sys.argv), options)


def conclude(outcomes: list[Outcome], options: argparse.Namespace) -> int:
    """Print the outcome of each run; returns the exit code."""
    report(outcomes)
    if options.json:
        stocks = {outcome.symbol: outcome.summary() for outcome in outcomes}
        print(json.dumps({"base": stocks.pop("base", None), "stocks": stocks}))
    return exit_code(outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = parser_of("Train a base model on many stocks, then a specialist for each.", DATA)
    parser.add_argument("--stocks", nargs="+", metavar="SYMBOL", help="fine-tune for these (all of the base)")
    parser.add_argument("--base", type=Path, metavar="RUN", help="start from this base run instead of training one")
    options = parser.parse_args(arguments)
    trainer = trainer_of(options, DATA)
    return train_and_specialise(trainer, options.stocks or (), options.base, options, None)


if __name__ == "__main__":
    sys.exit(run_command(main, goes_on="the same command with --resume goes on"))
