"""What torchrun, or whoever sets its variables, says of this process: read here alone, since it may be anything."""

import os

from hftraining.core.errors import ConfigError, in_a_line

SIZE, PLACE = "WORLD_SIZE", ("RANK", "MASTER_ADDR", "MASTER_PORT")
HELP = "torchrun sets it; unset it to train in one process"


def started() -> int:
    """How many processes torchrun has started beside each other, this one included; 1 where it has not.

    A size by itself, which some machines set for all that they run, is no torchrun, whatever it says. Raises
    ConfigError for variables that contradict each other: ranks that do not find each other would each train the whole
    run.
    """
    given = [name for name in PLACE if os.environ.get(name)]
    if not given or not os.environ.get(SIZE) or (size := _number(SIZE, 1, None)) == 1:
        return 1
    if lacking := [name for name in PLACE if name not in given]:
        raise ConfigError(
            f"{SIZE}={size} and {' and '.join(given)} are set in the environment, but not {' and '.join(lacking)}: "
            f"start with torchrun, or unset {SIZE} to train in one process"
        )
    _number("RANK", 0, size - 1)
    _number("MASTER_PORT", 1, 65_535)
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        if name in os.environ:
            _number(name, 0, size)
    return size


def _number(name: str, least: int, most: int | None) -> int:
    """A whole number in the environment. Raises ConfigError."""
    text = os.environ[name]
    if (
        text.isascii()
        and text.isdigit()
        and len(text) < 10
        and least <= int(text)
        and (most is None or int(text) <= most)
    ):
        return int(text)
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ConfigError(f"{name}={in_a_line(text, 60)} in the environment is no whole number {wanted}: {HELP}")
