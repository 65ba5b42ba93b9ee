"""A worker of a sweep, as a launcher starts it."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hftraining.core.endings import foreseen
from hftraining.core.errors import Ending
from hftraining.experiment.compose import Composer
from hftraining.sweep.serve import serve
from hftraining.sweep.settings import search_of, sweep_folder, without_search
from hftraining.sweep.space import parse_space
from hftraining.sweep.study import Study
from hftraining.sweep.trials import TrialRunner, fixed_values


def work(composed: DictConfig) -> str | Ending:
    """A job of a sweep, started by a launcher. Returns why it ended: full, failing or interrupted.

    What the disk, the memory or a limit has ended is returned, too: of what a job raises Hydra prints a page.
    """
    try:
        return _work(composed)
    except Exception as error:
        if end := foreseen(error):
            return end
        raise


def _work(composed: DictConfig) -> str:
    hydra = HydraConfig.get()
    search = search_of(composed)
    study = Study(search, sweep_folder(composed))
    pinned = without_search(list(hydra.overrides.task))
    space = parse_space(study.definition["params"], study.definition["when"])
    composer = Composer(pinned, str(hydra.job.config_name))
    trials = TrialRunner(search, composer, Path(composed.output_dir), study)
    fixed = fixed_values(composer.config({}), space)
    return serve(study, space, fixed, trials.run)
