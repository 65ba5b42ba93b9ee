"""The best configuration of a sweep, best/*.yaml, which a stranger may have written: values of known fields alone."""

from pathlib import Path

from hftraining.core.errors import ConfigError
from hftraining.core.untrusted import is_there
from hftraining.core.values import flatten
from hftraining.experiment.compose import override
from hftraining.experiment.config import plain_values

# Where a run goes, and what it starts from, is for its user to say.
NOT_IN_A_BEST = ("name", "output_dir", "resume", "init_from", "evidence.ledger")


def overrides_of(text: str) -> list[str]:
    """The overrides that +best=PATH stands for. Hydra never reads the file, nor any other one of its folder.

    Raises ConfigError for a file that is no best/*.yaml, and UserError for one that is not made of known fields.
    """
    path = Path(text.removeprefix("+best="))
    if not is_there(path) or path.suffix != ".yaml" or path.parent.name != "best":
        raise ConfigError(f"{text}: there is no such file best/*.yaml of a sweep")
    values = flatten(plain_values(path))
    for name in NOT_IN_A_BEST:
        if name in values:
            raise ConfigError(f"{path}: {name} says where a run goes, not what it is: remove it from the file")
    return [override(name, value) for name, value in values.items()]
