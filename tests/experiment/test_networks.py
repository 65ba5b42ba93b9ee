"""Every kind of network is a whole run: proof, replay, resumption, fine-tuning, report and comparison."""

from pathlib import Path

import numpy as np
import pytest

from hfinference import load_model
from hftraining.__main__ import main
from hftraining.experiment.config import load_config
from hftraining.experiment.proof import prove_run
from hftraining.experiment.replay import replay
from hftraining.market.config import StocksConfig
from hftraining.market.prices import load_bars
from hftraining.reports.compare import compare
from hftraining.training.checkpoint import Checkpoints
from tests.compose import compose_config
from tests.runs_of import FAST, QUICK, placed, trained, tune, tuned_config

pytestmark = pytest.mark.slow  # whole runs

NARROW = ("model.hidden_size=16", "model.context=8", "model.dropout=0.1")
KINDS = {
    "transformer": ("model=tiny", *NARROW, "model.symbol_embedding=true", "model.cross_asset=true"),
    "one day": ("model=tiny", *NARROW[::2], "model.context=1"),
    "linear": ("model=linear", "model.context=8"),
    "mlp": ("model=mlp", *NARROW[::2], "model.context=2", "model.symbol_embedding=true"),
    "lstm": ("model=lstm", *NARROW, "model.symbol_embedding=true"),
    "patchtst": (
        "model=patchtst",
        *NARROW,
        "model.patch_length=4",
        "model.stride=2",
        "model.num_heads=2",
        "model.symbol_embedding=true",
    ),
}


def run_of(kind, folder, output, *overrides):
    quick = [text for text in QUICK if not text.startswith("model")]
    return trained(compose_config(*quick, *FAST, *KINDS[kind], f"stocks.path={folder}", *placed(output), *overrides))


@pytest.fixture(scope="module", params=KINDS)
def made(request, folder, tmp_path_factory):
    """The result of a run of that kind, and its kind."""
    return run_of(request.param, folder, tmp_path_factory.mktemp("network")), request.param


def test_a_network_is_replayed_to_the_bit_and_proved_to_leak_nothing(made, tmp_path):
    folder = Path(made[0]["folder"])
    again = replay(folder, tmp_path, say=lambda line: None)
    assert again.bits.equal and again.bits.tensors > 1
    assert prove_run(folder, days=2).lines == []


def test_a_network_resumes_from_a_checkpoint_to_the_same_bits(made, folder, tmp_path, monkeypatch):
    save = Checkpoints.save

    def killed(self, step, *rest, **more):
        save(self, step, *rest, **more)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_of(made[1], folder, tmp_path)
    monkeypatch.undo()
    (cut,) = (tmp_path / "base").glob("*/*")
    config = load_config(cut / "config.yaml")
    config.resume = str(cut)
    again = trained(config)
    ours, theirs = ((Path(r["folder"]) / "model" / "model.safetensors").read_bytes() for r in (again, made[0]))
    assert ours == theirs and again["test"]["profit"] == made[0]["test"]["profit"]


@pytest.mark.long
def test_a_network_is_fine_tuned_by_every_method_and_keeps_what_it_knows_of_its_symbols(made, tmp_path):
    base, kind = made
    methods = "full,head,lora,scratch" if kind != "transformer" else "full,scratch"
    stocks = "stocks.symbols=[S0,S1,S2]" if kind == "transformer" else "stocks.symbols=[S1]"
    tuned = tune(Path(base["folder"]), tmp_path, f"training.methods=[{methods}]", stocks)
    before = load_model(base["folder"]).predictor
    for method in methods.split(","):
        candidate = load_model(Path(tuned["folder"]) / "candidates" / method).predictor
        assert candidate.symbols == before.symbols == ("S0", "S1", "S2")
        assert vars(candidate.model.config) == vars(before.model.config)
        if before.model.symbols is not None and method in ("head", "lora"):
            assert (candidate.model.symbols.weight == before.model.symbols.weight).all()


def test_the_fine_tune_of_a_network_that_looks_across_stocks_has_the_windows_of_its_base(made, tmp_path):
    tuning = tuned_config(Path(made[0]["folder"]), tmp_path, "training.batch_size=4", symbol="S0,S1,S2").training
    assert tuning.symbols_per_window == (2 if made[1] == "transformer" else 1)


def test_the_symbols_of_a_network_are_learned_and_its_folder_is_read_back(made, folder):
    result, _ = made
    model = load_model(result["folder"]).predictor
    bars = load_bars(StocksConfig(source="files", path=str(folder)))
    forecast = model.forecast(bars)
    turned = model.forecast(bars.of(bars.symbols_S[::-1]))
    np.testing.assert_allclose(turned.quantiles_TSHQ[:, ::-1], forecast.quantiles_TSHQ, rtol=1e-5, atol=1e-6)
    if model.model.symbols is not None:
        assert (model.model.symbols.weight.abs().sum(dim=1) > 0).all()


def test_a_network_has_a_report_and_is_compared_with_others(made, reference):
    result, _ = made
    assert main(["report", result["folder"]]) == 0
    comparison = compare([reference["folder"], result["folder"]])
    assert comparison.config[0].field.startswith("model")
