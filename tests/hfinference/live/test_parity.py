"""Replays of 250 sessions of the packaged sample beside its backtests, for kinds of models and every portfolio.

HFTRAINING_LONG=1 runs two pairs, and with HFTRAINING_PARITY=all all portfolios with all kinds.
"""

import os
from pathlib import Path

import pytest

from hfinference import backtest_model
from hftraining.core.errors import UserError
from tests.compose import compose_config
from tests.hfinference.live.paper import replayed
from tests.hfinference.live.test_trader import same_account
from tests.runs_of import FAST, placed, trained

PORTFOLIOS = sorted(path.stem for path in Path("conf/portfolio").glob("*.yaml"))
KINDS = {
    "tiny": ("training.max_steps=4", "training.warmup_steps=2", "training.batch_size=4", "training.checkpoint_every=4"),
    "ridge": (),
    "lightgbm": (),
}
FEW = {("ridge", "long_short"), ("lightgbm", "top")}
START, END, LEAST = "2016-01-04", "2016-12-30", 250


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run of a kind on the sample, of absolute returns, which feed every portfolio."""
    made: dict[str, Path] = {}

    def of(kind: str, stocks: str = "sample") -> Path:
        if (kind, stocks) not in made:
            output = tmp_path_factory.mktemp(f"{kind}")
            words = (f"model={kind}", f"stocks={stocks}", "objective.relative=none", *KINDS[kind], *FAST)
            made[kind, stocks] = Path(trained(compose_config(*words, *placed(output)))["folder"])
        return made[kind, stocks]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("portfolio", PORTFOLIOS)
@pytest.mark.long
def test_250_sessions_of_the_sample_are_the_backtest_to_the_cent(run_of, tmp_path, kind, portfolio):
    if os.environ.get("HFTRAINING_PARITY") != "all" and (kind, portfolio) not in FEW:
        pytest.skip("HFTRAINING_PARITY=all tries it")
    run, words = run_of(kind), [f"portfolio={portfolio}"]
    stocks = ["AAPL"] if portfolio == "timing" else []
    try:
        backtest = backtest_model(run, START, END, words=words, stocks=stocks, outputs=tmp_path)
    except UserError as error:
        with pytest.raises(UserError):  # a portfolio that this model cannot feed is refused by both
            replayed(run, START, END, tmp_path / "journal", *words, stocks=stocks)
        pytest.skip(str(error))
    paper = replayed(run, START, END, tmp_path / "journal", *words, stocks=stocks)
    assert len(paper.equity) >= LEAST and paper.difference < 0.005
    same_account(paper, backtest)
