"""What torchrun's ranks cannot do is said in one line, before anything is written: experiment/ranks.py."""

from types import SimpleNamespace

import pytest

from hftraining.core.errors import ConfigError
from hftraining.experiment.ranks import sweep_refused, with_ranks
from hftraining.training.group import RANKS
from tests.compose import compose_config


@pytest.fixture
def launched(monkeypatch):
    """Two ranks, as torchrun would start them; this process is the lead."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hftraining.experiment.ranks.RANKS", [SimpleNamespace(size=2)])


def test_without_torchrun_a_config_stays_as_it_is_and_a_sweep_may_start(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    config = compose_config()
    assert with_ranks(config) is config and sweep_refused() is None and not RANKS


def test_the_ranks_are_the_processes_of_the_run(launched):
    assert with_ranks(compose_config()).training.processes == 2
    assert with_ranks(compose_config("training.processes=2")).training.processes == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=lightgbm"], "model.kind=lightgbm learns in one process: leave torchrun out"),
        (["training.processes=3"], "training.processes=3, but torchrun has started 2: leave training.processes out"),
        (
            ["training.processes=2", "training.engine=ray"],
            "training.engine=ray starts processes, and so does torchrun: use one of them",
        ),
    ],
)
def test_what_ranks_cannot_train_is_refused(launched, overrides, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        with_ranks(compose_config(*overrides))


def test_a_sweep_and_a_process_of_a_launcher_are_no_ranks(launched, monkeypatch):
    assert "not of a sweep" in str(sweep_refused())
    monkeypatch.setattr("hftraining.experiment.ranks.RANKS", [])
    with pytest.raises(ConfigError, match="no rank of its own: leave hydra/launcher out"):
        with_ranks(compose_config())
