"""Replay of a fine-tune, and of a trial of a sweep, whose test days stay sealed."""

from pathlib import Path

import pytest

from hftraining.experiment.compose import composed
from hftraining.experiment.config import typed_config
from hftraining.experiment.replay import replay
from hftraining.runs.ledger import Ledger
from tests.runs_of import FAST, QUICK, placed, trained, tune


@pytest.mark.slow
@pytest.mark.parametrize("methods", ["[full,lora]", "[head]"])
def test_replay_of_a_fine_tune_is_bit_exact(base, tmp_path, methods):
    run = Path(tune(base, tmp_path, f"training.methods={methods}")["folder"])
    again = replay(run, say=lambda line: None)
    assert again.bits.equal and again.causes == []
    assert again.folder.parent == run.parent
    for method in ("full", "lora", "head"):
        ours, theirs = (place / "candidates" / method / "model" / "model.safetensors" for place in (run, again.folder))
        assert ours.exists() == theirs.exists()
        assert not ours.exists() or ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_replay_of_a_trial_leaves_the_test_days_sealed(folder, tmp_path):
    settings = ["stocks=folder", *QUICK, *FAST, f"stocks.path={folder}", *placed(tmp_path)]
    config = typed_config(composed(settings))
    trial = trained(config, [], kind="sweeps", name="study", called="trial-0000", sealed=True)
    again = replay(Path(trial["folder"]), say=lambda line: None)
    assert again.bits.equal and again.folder.parent == tmp_path / "sweeps" / "study"
    assert [entry.test_window for entry in Ledger(tmp_path / "ledger.sqlite").entries()] == ["", ""]
