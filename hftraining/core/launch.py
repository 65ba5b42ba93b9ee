"""What the variables of torchrun and Ray say of this process: read here alone, since they may be anything."""

import os
import re
import socket

from hftraining.core.errors import ConfigError, in_a_line

SIZE, PLACE = "WORLD_SIZE", ("RANK", "MASTER_ADDR", "MASTER_PORT")
HELP = "torchrun sets it; unset it to train in one process"
RAY = "RAY_ADDRESS"
RAY_HELP = "unset it to start Ray on this machine, or give the HOST:PORT of a cluster's head"
_HOST_PORT = re.compile(r"([\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})", re.ASCII)
_ANSWER_SECONDS = 10.0


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


def ray_cluster() -> str | None:
    """The Ray cluster of RAY_ADDRESS, HOST:PORT or `auto`; None where one is to be started on this machine.

    Raises ConfigError for what is no address, and where nobody answers: Ray itself would wait for many minutes.
    """
    address = os.environ.get(RAY)
    if not address or address == "local":
        return None
    if address == "auto":
        return address
    said = f"{RAY}={in_a_line(address, 60)} in the environment"
    if address.startswith("ray://"):
        raise ConfigError(f"{said}: a Ray client cannot lead a training, run it on the cluster: {RAY_HELP}")
    if not (found := _HOST_PORT.fullmatch(address)) or not 0 < int(found[2]) < 65_536:
        raise ConfigError(f"{said} is no address: {RAY_HELP}")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), _ANSWER_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: of a name that no name server could know
        raise ConfigError(f"{said}: nobody answers there ({in_a_line(str(error), 100)}): {RAY_HELP}") from None
    return address
