"""Every ending of a command as one line and an exit code, whatever was raised, and the traceback of what is our fault.

What a disk, a limit or a signal does is foreseen, and named with what the user can do about it: exit code 2, or 3 for a
signal and for a closed pipe. All else is a fault of ours: exit code 1, and the traceback goes into the train.log of the
run, or into a file of its own.
"""

import errno
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from platformdirs import user_state_path

from hftraining.core.errors import (
    EXIT_INTERRUPTED,
    EXIT_OURS,
    EXIT_USER,
    Ending,
    Fault,
    Interrupted,
    UserError,
    in_a_line,
)
from hftraining.core.secret import masked

# Explains an exception that only one place can understand, such as one of Hydra; None: somebody else may.
Explain = Callable[[Exception], Ending | None]

LEAST_ADDRESSES = 2 * 10**9  # bytes; with two threads torch and OpenBLAS fail at 1.5e9 and load at 3e9

_SIGNALS: list[str] = []  # that came within stopped_by_signals
_RUN_FOLDER = "hftraining_run_folder"  # the attribute of an exception that left a run
_RESUMES = "python train.py resume={folder} goes on"
# How libraries write the errno into their text: "[errno 28]" (pyarrow), "(os error 28)" (safetensors), "Error code 12"
# (torch).
_NUMBER = re.compile(r"(?:\[errno |\bos error |\berror code:? )(\d+)", re.IGNORECASE)
_NO_MEMORY = re.compile(
    r"not enough memory|can't allocate memory|out of memory|bad_alloc|Unable to allocate|failed to map segment",
    re.IGNORECASE,
)
_TEMPORARY = re.compile(r"/\.([^/]+)\.[0-9a-f]{8}\.tmp\Z")  # see files.py: replacing
_NO_THREADS = re.compile(r"can't start new thread|Resource temporarily unavailable", re.IGNORECASE)
_CLOSED_PIPE = "nobody reads the output any more"
_SAYS = {
    errno.ENOSPC: "no space left on the disk of {where}: free some",
    errno.EDQUOT: "the disk quota of {where} is used up: free some space",
    errno.EFBIG: "{where} would pass the limit of the size of a file: raise it (ulimit -f)",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: close some",
    errno.EACCES: "{where}: permission denied",
    errno.EPERM: "{where}: this is not permitted",
    errno.EROFS: "{where} lies on a disk that can only be read: choose another place",
    errno.ENAMETOOLONG: "{where}: the name or the path is too long",
    errno.ENOENT: "{where} does not exist, or was deleted on the way",
    errno.ESTALE: "{where} was deleted on the way",
    errno.ENODEV: "{where} is on a device that is gone",
    errno.ENOTDIR: "{where}: a file lies where a folder is needed",
    errno.EISDIR: "{where} is a folder, and a file is needed",
    errno.EEXIST: "{where} exists already",
    errno.ENOTEMPTY: "{where} was changed by somebody else on the way",
    errno.ELOOP: "{where}: its links lead in a circle",
    errno.EIO: "{where}: the disk fails (input/output error)",
    errno.EINVAL: "{where}: the file system refuses this name or this access",
}
_MEMORY = "not enough memory: choose a smaller model, batch, window or set of stocks, or raise the limit (ulimit -v)"
_THREADS = "no more threads or processes can be started: lower training.threads, or raise the limit (ulimit -u)"


class _Ended(SystemExit):
    """Our own end of the process, which nobody changes."""


def check_memory_limit() -> None:
    """Raise UserError where a limit on addresses would end the process while torch is loaded.

    OpenBLAS, for one, then sends a signal or exits by itself, with words that help nobody.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < LEAST_ADDRESSES:
        raise UserError(f"the limit on memory, ulimit -v {limit // 1024}, is too small to load torch: raise it")


@contextmanager
def in_the_run(folder: Path) -> Iterator[None]:
    """An exception that leaves a run remembers its folder, that of the outermost run."""
    try:
        yield
    except BaseException as error:
        setattr(error, _RUN_FOLDER, folder)
        raise


@contextmanager
def one_line_endings(explain: Explain | None = None, goes_on: str = _RESUMES) -> Iterator[None]:
    """Whatever is raised within ends the process with one line on stderr and an exit code, as SystemExit.

    explain: see Explain. goes_on: what the user types once the cause is mended; {folder} is that of the run.
    """
    try:
        yield
        _flush()
    except SystemExit as stopped:
        try:
            _flush()
        except BrokenPipeError as error:
            stopped.code = end_with(error)
        if stopped.code == EXIT_OURS and not isinstance(stopped, _Ended):
            stopped.code = EXIT_USER  # a library that has said in a line of its own what it refuses
        raise
    except BaseException as error:
        raise _Ended(end_with(error, explain, goes_on)) from None


def end_with(error: BaseException, explain: Explain | None = None, goes_on: str = _RESUMES) -> int:
    """Print the line of an exception to stderr; returns its exit code. See one_line_endings."""
    folder = _folder_of(error)
    if _is_closed_pipe(error):
        _give_up_stdout()
        if folder is None:
            return EXIT_INTERRUPTED  # a listing, say, cut by `| head`: nobody needs a word
    end = ending_of(error, explain)
    if _SIGNALS and not isinstance(end, Interrupted):  # a library that it hit made another error of it
        end = Interrupted(f"stopped by {_SIGNALS[-1]}")
    text = in_a_line(str(end))
    if folder is not None and isinstance(end, UserError | Interrupted) and _is_run(folder):
        once = "; " if isinstance(end, Interrupted) else "; once that is mended, "
        text += once + goes_on.format(folder=folder)
    _say(f"{end.word}: {text}")
    return end.exit_code


def ending_of(error: BaseException, explain: Explain | None = None) -> Ending:
    """The ending that an exception means. A fault of ours has its traceback written.

    The exceptions that caused it are asked, too: libraries wrap what the disk says.
    """
    if isinstance(error, UserError) and (text := _deleted(_folder_of(error))):
        return UserError(text)  # whatever was missed first
    if isinstance(error, Ending):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"stopped by {error.args[0]}" if error.args else "stopped")
    if _is_closed_pipe(error):
        return Interrupted(_CLOSED_PIPE)
    if end := foreseen(error):
        return end
    if explain and isinstance(error, Exception) and (end := explain(error)):
        return end
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Fault(f"unforeseen, and our fault: {in_a_line(said, 400)} ({_where_in_code(error)}; {_write(error)})")


def foreseen(error: BaseException) -> Ending | None:
    """The ending of what the disk, the memory or a limit has done, in the exception or in one that caused it."""
    for cause in _causes(error):
        if isinstance(cause, Ending):
            return cause
        if text := _says(cause, _folder_of(error)):
            return UserError(text)
    return None


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt within, as ctrl-C does, so that everything is closed on the way out.

    Only in the main thread; a forked child that inherits the handler ends as if it had none. The step loop has its own
    handler (training/trainer.py: stop_signals), which saves first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        _SIGNALS.append(signal.Signals(number).name)
        raise KeyboardInterrupt(_SIGNALS[-1])

    _SIGNALS.clear()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        _SIGNALS.clear()


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() and (folder / "config.yaml").is_file()


def _deleted(folder: Path | None) -> str:
    """What to say of a run whose folder is gone; empty while it is there."""
    return f"{folder} was deleted while it was written: begin again" if folder and not _is_run(folder) else ""


def _folder_of(error: BaseException) -> Path | None:
    found: Path | None = getattr(error, _RUN_FOLDER, None)
    return found


def _says(error: BaseException, folder: Path | None) -> str:
    """What the disk, the memory or a limit says, in one line; empty for any other exception."""
    text = str(error)
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        return f"{_MEMORY} ({in_a_line(text, 200)})" if text else _MEMORY
    if isinstance(error, ValueError) and text.startswith("embedded null"):
        return "a name with a zero byte in it is the name of no file"
    if isinstance(error, RuntimeError | OSError) and _NO_THREADS.search(text):
        return _THREADS
    found = _NUMBER.search(text)
    number = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else 0
    if number == errno.ENOMEM:
        return _MEMORY
    if isinstance(error, RuntimeError) and text.startswith("Symlink loop"):  # pathlib, before Python 3.13
        return _SAYS[errno.ELOOP].format(where=in_a_line(text.partition(" from ")[2], 200))
    if number in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR) and (text := _deleted(folder)):
        return text
    if number in _SAYS:
        names = [name for name in (getattr(error, "filename2", None), getattr(error, "filename", None)) if name]
        where = _TEMPORARY.sub(r"/\1", str(names[0])) if names else _somewhere(number, folder)
        return _SAYS[number].format(where=in_a_line(where, 200))
    return ""


def _somewhere(number: int, folder: Path | None) -> str:
    """The place of an error that names none."""
    if number == errno.ENOENT and not _working_folder():
        return "the working folder"
    if number in (errno.ENOSPC, errno.EDQUOT):
        for place in (folder, _working_folder(), Path(tempfile.gettempdir()), user_state_path("hftraining")):
            if place is not None and is_full(place):
                return str(place)
    return str(folder) if folder else "a file that was used"


def is_full(path: Path) -> bool:
    """Whether the disk of a file or folder has no space left for us."""
    place = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    with suppress(OSError):
        return place is not None and os.statvfs(place).f_bavail == 0
    return False


def _working_folder() -> Path | None:
    with suppress(OSError):
        return Path.cwd()
    return None


def _where_in_code(error: BaseException) -> str:
    """File and line of the innermost code of ours."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "in no code of ours"


def _write(error: BaseException) -> str:
    """Write the traceback into the train.log of the run, or a file of its own; says where it is."""
    now = datetime.now()
    trace = masked("".join(traceback.format_exception(error)), users=True)
    text = f"{now:%Y-%m-%d %H:%M:%S} ERROR {trace}"
    folder, name = _folder_of(error), f"{now:%Y-%m-%d_%H-%M-%S}_{os.getpid()}.log"
    places = [folder / "train.log"] if folder is not None and folder.is_dir() else []
    places += [user_state_path("hftraining") / "faults" / name, Path(tempfile.gettempdir()) / f"hftraining_{name}"]
    for path in places:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A log that is a link may lead to a file of the user's: a run folder can be a stranger's.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            with open(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return f"the traceback is in {path}"
    return "its traceback could be written nowhere"


def _is_closed_pipe(error: BaseException) -> bool:
    return isinstance(error, BrokenPipeError) and error.filename is None


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _give_up_stdout() -> None:
    """Send what is still unwritten nowhere: the interpreter flushes stdout at its end, and would complain."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _say(line: str) -> None:
    """Print to stderr; an exit code is worth more than a line that nobody can read."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)
