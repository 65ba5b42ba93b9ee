"""Train on one stock or several, and see what each would have earned.

    python train_with_profit.py --stock AAPL --steps 5000
    python train_with_profit.py --stocks AAPL GOOGL MSFT TSLA --base-model
    python train_with_profit.py --stocks AAPL MSFT --base-model outputs/base/NAME/DATE_TIME --jobs 2
    python train_with_profit.py --stock AAPL --data sample         offline, on the packaged bars

Without --base-model each stock is trained alone. With it a base model is trained first, or taken from the named run;
each stock is fine-tuned from it and compared with it.
"""

import copy
import os
import sys

# Run as a script, its own folder would come first on the path; the package lies in the folder above.
if __name__ in ("__main__", "__mp_main__") and not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Sequence
from pathlib import Path

from hftraining.base_model_trainer import (
    DATA,
    BaseModelTrainer,
    conclude,
    parser_of,
    train_and_specialise,
    trained,
    trainer_of,
)
from hftraining.core.command import positive, run_command
from hftraining.experiment.compose import override
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.processes import run_all
from hftraining.model.base import Forecaster

SINGLE = "single"  # one stock through yfinance
TRAINED = "train one"  # --base-model without a run


def train_single_stock_with_profit(
    stock: str,
    steps: int | None = None,
    *,
    data: str = SINGLE,
    batch_size: int | None = None,
    output_dir: Path | str | None = None,
    settings: Sequence[str] = (),
) -> tuple[Forecaster, Path]:
    """Train on one stock alone; returns the model and its run folder, outputs/single/STOCK/DATE_TIME.

    data: an option of the stocks group, e.g. sample (offline). settings: more fields, as on train.py's command line.
    Raises ConfigError or MarketDataError for what the user can mend.
    """
    trainer = BaseModelTrainer([stock], data=data, output_dir=output_dir, settings=settings)
    return trained(single_config(trainer, stock, steps, batch_size))


def single_config(trainer: BaseModelTrainer, stock: str, steps: int | None, batch_size: int | None) -> ExperimentConfig:
    """The config of a run on one stock alone, or of the one to resume."""
    alone = copy.copy(trainer)
    alone.base_stocks = [stock]
    alone.settings = ["training.symbols_per_window=1", override("name", stock), *trainer.settings]
    return alone.base_config(steps, batch_size)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = parser_of(str(__doc__), f"{SINGLE}, with --base-model {DATA}")
    stocks = parser.add_mutually_exclusive_group(required=True)
    stocks.add_argument("--stock", metavar="SYMBOL", help="one stock")
    stocks.add_argument("--stocks", nargs="+", metavar="SYMBOL", help="several")
    parser.add_argument("--steps", type=positive, metavar="N", help="steps of each stock's training")
    parser.add_argument(
        "--base-model", nargs="?", const=TRAINED, metavar="RUN", help="fine-tune from this base run, or from a new one"
    )
    options = parser.parse_args(arguments)
    symbols = list(dict.fromkeys(options.stocks or [options.stock]))
    if options.base_model:
        if options.steps and options.finetune_epochs:
            parser.error("--steps and --finetune-epochs both say how long to fine-tune: give one of them")
        base = None if options.base_model == TRAINED else Path(options.base_model)
        if base and (options.base_stocks or options.base_steps):
            parser.error(f"--base-stocks and --base-steps train a base model, but --base-model names one: {base}")
        return train_and_specialise(trainer_of(options, DATA), symbols, base, options, options.steps)
    for name in ("base_stocks", "base_steps", "finetune_epochs", "methods", "finetune_set"):
        if getattr(options, name):
            parser.error(f"--{name.replace('_', '-')} needs --base-model")
    trainer = trainer_of(options, SINGLE)
    configs = {symbol: single_config(trainer, symbol, options.steps, options.batch_size) for symbol in symbols}
    return conclude(run_all(configs, options.jobs, sys.argv), options)


if __name__ == "__main__":
    sys.exit(run_command(main, goes_on="the same command with --resume goes on"))
