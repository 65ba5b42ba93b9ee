"""The terminal and its tables, for every command: light enough for those that read no run."""

import errno
import sys

from rich import box
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table


class Terminal(RichConsole):
    """Rich's console, which tells the command when nobody reads any more; Rich's own would end the process."""

    def on_broken_pipe(self) -> None:
        """Be quiet from now on, so that what is closed on the way out does not fail, too."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")


def wide_console(quiet: bool = False) -> RichConsole:
    """The terminal; 160 columns wide, not 80, when the output goes to a file or another program."""
    return Terminal(highlight=False, width=None if sys.stdout.isatty() else 160, quiet=quiet)


def plain_table(*heads: str) -> Table:
    """A table without a frame that folds long cells."""
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(escape(head), overflow="fold")
    return table
