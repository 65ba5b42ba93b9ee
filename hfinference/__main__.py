"""Commands of a trained run at work: `python -m hfinference backtest | forecast | ... RUN`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from hfinference import commands
from hftraining.core.command import Commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 2 the user's input, 3 interrupted, 1 our fault."""
    found = Commands("python -m hfinference", __doc__)
    for module in iter_modules(commands.__path__):
        import_module(f"{commands.__name__}.{module.name}").add_to(found)
    return found.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
