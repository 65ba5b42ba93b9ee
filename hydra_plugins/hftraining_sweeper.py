"""Our sweeper, where Hydra looks for plugins: in a folder of this name. Its work is done in hftraining/sweep."""

from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore

from hftraining.core.endings import one_line_endings
from hftraining.core.errors import ConfigError


class HftrainingSweeper(BasicSweeper):
    """With search=... a study on Optuna, else Hydra's own multirun with a table at its end."""

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, n_trials: int | None = None
    ) -> None:
        super().__init__(max_batch_size, params)
        self.n_trials = n_trials

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the overrides of the command line."""
        # Every start of Hydra imports this file, so heavy imports wait until here.
        assert self.config is not None and self.launcher is not None
        from hftraining.core.orphan import end_workers_early
        from hftraining.sweep.settings import refuse_secrets_of

        refuse_secrets_of(self.config)
        end_workers_early(self.launcher)
        if self.config.search is not None:
            # What goes wrong here is not the composing, with which train.py would explain it.
            with one_line_endings(_explain, goes_on="the same command goes on with the study"):
                return self._search(self.config, self.launcher, arguments)
        from hftraining.sweep.multirun import refuse_search_settings, show_table

        refuse_search_settings(self.n_trials)
        returns = super().sweep(arguments)
        with one_line_endings():
            show_table(self.config.hydra.sweep.dir)
        return returns

    def _search(self, config: Any, launcher: Any, arguments: list[str]) -> Any:
        from hftraining.sweep.settings import search_of

        search = search_of(config)
        from hftraining.sweep.sweeper import run_sweep

        return run_sweep(config, search, arguments, self.n_trials, launcher)


def _explain(error: Exception) -> ConfigError | None:
    from hftraining.experiment.compose import explain_overrides

    return explain_overrides(error)


@dataclass
class HftrainingSweeperConf(BasicSweeperConf):
    """The node hydra.sweeper."""

    _target_: str = "hydra_plugins.hftraining_sweeper.HftrainingSweeper"
    n_trials: int | None = None  # the size of the study; search.n_trials unless given


ConfigStore.instance().store(
    group="hydra/sweeper", name="hftraining", node=HftrainingSweeperConf, provider="hftraining"
)
