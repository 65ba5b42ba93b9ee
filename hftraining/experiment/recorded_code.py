"""Replay with the recorded code: a commit of the own repository and the run's code.patch, in a temporary worktree.

The patch may be a stranger's. It is applied to an index, never to files, and what it did there is checked: it may
change source files, and nothing else. We write the files of the worktree ourselves, so that no filter, hook, link or
submodule has a part in it. The code runs only if the user trusts it.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any

from hftraining.core import keeper
from hftraining.core.errors import Interrupted
from hftraining.core.values import printable
from hftraining.experiment.config import load_config
from hftraining.experiment.replay import Replay, ReplayError, finished_run, judged, known_causes
from hftraining.runs.code_version import (
    PATCH_BYTES,
    PATCH_FILE,
    SAFE_GIT,
    SOURCE_TREE,
    SOURCES,
    SUFFIXES,
    git_environment,
    source_digest,
)
from hftraining.runs.folder import RunFolder

PREFIX = "hftraining-replay-"  # of the temporary folders
NAMELESS_SECONDS = 3600.0  # a folder without a lock is as young as its maker, or left over
FILES_SHOWN = 20
FILE, ABSENT = "100644", "000000"
EXECUTABLE = "100755"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NAME = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What a patch did to one file: its name, its modes before and after, and its lines (None: a binary file)."""

    name: str
    before: str
    after: str
    added: int | None
    removed: int | None

    @property
    def problem(self) -> str:
        """Why it is refused, whoever trusts it; empty where it is not."""
        path = PurePosixPath(self.name)
        in_place = path.parts[0] in SOURCES and (len(path.parts) > 1) != path.parts[0].endswith(SUFFIXES)
        if not (_NAME.fullmatch(self.name) and in_place and path.suffix in SUFFIXES and ".." not in path.parts):
            return "is no source file of the project"
        if self.after not in (ABSENT, FILE) and self.after != self.before:
            return f"gets the mode {self.after}"
        if self.before not in (ABSENT, FILE) and self.after != self.before:
            return f"has the mode {self.before}"
        return "is binary" if self.added is None else ""


def replay_from_commit(folder: Path, outputs: Path | None = None, say: Say = print, *, trust: bool = False) -> Replay:
    """As `replay`, but with the recorded commit and code.patch, in a temporary git worktree.

    trust: run code that is on no branch of the repository; else the user is asked, and no terminal means no. Raises
    ReplayError if the recorded code is not available, not trusted, or changes more than source files; Interrupted on a
    signal.
    """
    run = finished_run(folder)
    commit, patch = _recorded(run)
    target = (outputs or run.outputs or Path("outputs")).resolve()
    with _ending_by_signal(), _temporary_folder() as temporary:
        tree = temporary / "tree"
        _git(
            *("worktree", "add", "--detach", "--no-checkout", str(tree), commit),
            failing=f"cannot check out commit {commit[:12]}",
        )
        try:
            changes = _apply(tree, commit, patch, folder)
            _ask(folder, commit, changes, say, trust)
            _write_files(tree)
            if run.code.get("digest") not in (None, source_digest(tree), source_digest(tree, None)):
                raise ReplayError(f"commit {commit[:12]} and {PATCH_FILE} are not the code that run.json names")
            if not any(tree.glob("hftraining/**/replay.py")):
                raise ReplayError(f"commit {commit[:12]} is older than replay: check it out and run it by hand")
            say(f"code: commit {commit[:12]}{' and ' + PATCH_FILE if patch else ''}, in a temporary worktree")
            again = _run_there(tree, folder, target, say)
        finally:
            _git("worktree", "remove", "--force", str(tree))
    causes = [cause for cause in known_causes(run, load_config(folder / "config.yaml")) if cause.kind != "code"]
    return judged(run, again, causes)


def _recorded(run: RunFolder) -> tuple[str, bytes]:
    """The commit and patch of a run; no patch for clean code. Raises ReplayError."""
    commit, folder = run.code.get("commit"), run.path
    if not commit:
        raise ReplayError(f"{folder}: run.json names no commit, so --from-commit has nothing to check out")
    if not (isinstance(commit, str) and _COMMIT.fullmatch(commit)):
        raise ReplayError(f"{folder}: the commit in run.json, {printable(commit)[:60]!r}, is no full hash")
    path = folder / PATCH_FILE
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ReplayError(f"{path} is no plain file")
    if run.code.get("dirty") and not path.is_file():
        why = printable(run.code.get("patch") or "no patch")
        raise ReplayError(f"{folder}: its code had uncommitted changes that are not in the folder ({why})")
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ReplayError(f"commit {commit[:12]} is not in {SOURCE_TREE}: fetch it first")
    if not path.is_file():
        return commit, b""
    if path.stat().st_size > PATCH_BYTES:
        raise ReplayError(f"{path} has {path.stat().st_size:,} bytes, more than a run writes ({PATCH_BYTES:,})")
    return commit, path.read_bytes()  # read once: what is checked is what is applied


def _apply(tree: Path, commit: str, patch: bytes, folder: Path) -> list[Change]:
    """Apply the patch to the index of the worktree, and say what it did. Raises ReplayError for more than sources."""
    _git("-C", str(tree), "read-tree", commit, failing=f"cannot read commit {commit[:12]}")
    if not patch.strip():
        return []
    where = folder / PATCH_FILE
    if re.search(rb"^GIT binary patch\s*$", patch, re.MULTILINE):  # a small one may unpack to gigabytes
        raise ReplayError(f"{where} is refused: it holds a binary file")
    failing = f"{where} does not fit its commit"
    _git("-C", str(tree), "apply", "--cached", "--whitespace=nowarn", "-", failing=failing, given=patch)
    plain = ("diff-index", "--cached", "--no-renames", "--no-ext-diff", "--no-textconv", "-z", commit, "--")
    raw = _git("-C", str(tree), plain[0], "--raw", *plain[1:], failing=failing).stdout.split(b"\0")
    counted = _git("-C", str(tree), plain[0], "--numstat", *plain[1:], failing=failing).stdout.split(b"\0")
    lines = {name: (added, removed) for added, removed, name in (text.split(b"\t", 2) for text in counted if text)}
    changes = []
    for facts, name in zip(raw[:-1:2], raw[1::2], strict=True):
        before, after = facts.decode().lstrip(":").split()[:2]
        added, removed = (None if text == b"-" else int(text) for text in lines[name])
        changes.append(Change(name.decode("utf-8", "backslashreplace"), before, after, added, removed))
    for change in changes:
        if change.problem:
            raise ReplayError(f"{where} is refused: {printable(change.name)[:100]} {change.problem}")
    return changes


def _ask(folder: Path, commit: str, changes: list[Change], say: Say, trust: bool) -> None:
    """Show code that is on no branch, and return if the user trusts it. Raises ReplayError if not."""
    # Tags and the branches of remotes may be another's.
    is_own = bool(_git("for-each-ref", "--count=1", f"--contains={commit}", "refs/heads").stdout.strip())
    is_own |= not _git("merge-base", "--is-ancestor", commit, "HEAD").returncode
    if is_own and not changes:
        return
    say(f"code: commit {commit}{'' if is_own else ', which is on no branch of the repository'}")
    if changes:
        where, s = printable(folder / PATCH_FILE), "s" if len(changes) > 1 else ""
        say(f"code: {where} changes {len(changes)} file{s}:")
    for change in changes[:FILES_SHOWN]:
        say(f"  {change.name}  +{change.added} -{change.removed}")
    if len(changes) > FILES_SHOWN:
        say(f"  and {len(changes) - FILES_SHOWN} more")
    if trust:
        return
    if sys.stdin.isatty() and sys.stdout.isatty() and input("run this code? [y/N] ").strip().lower() in ("y", "yes"):
        return
    raise ReplayError(f"{folder}: nothing was run: read {PATCH_FILE}, and add --trust to run it as your own code")


def _write_files(tree: Path) -> None:
    """Write the sources of the worktree's index as they are, without the filters that a checkout would run."""
    listed = _git("-C", str(tree), "ls-files", "--stage", "-z", "--", *SOURCES, failing="cannot list the code").stdout
    entries = [text.partition(b"\t") for text in listed.split(b"\0") if text]
    files = {name.decode("utf-8", "surrogateescape"): facts.decode().split() for facts, _, name in entries}
    odd = next((name for name, (mode, *_) in files.items() if mode not in (FILE, EXECUTABLE)), None)
    if odd:
        raise ReplayError(f"the recorded code is refused: {printable(odd)} is a link or another repository")
    asked = "".join(f"{blob}\n" for _, blob, _ in files.values()).encode()
    answer = _git("-C", str(tree), "cat-file", "--batch", failing="cannot read the code", given=asked).stdout
    place = 0
    for name in files:
        head, _, _ = answer[place:].partition(b"\n")
        start = place + len(head) + 1
        place = start + int(head.split()[2]) + 1
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(answer[start : place - 1])


def _run_there(tree: Path, folder: Path, outputs: Path, say: Say) -> Path:
    """Replay with the code of another tree, which ends with this process; returns the new run folder."""
    paths = [str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: the current folder may be a checkout itself and must not come before the tree.
    command = [sys.executable, "-P", "-m", "hftraining", "replay", str(folder), "--outputs", str(outputs), "--json"]
    kept = [sys.executable, "-I", str(keeper.__file__), *command]
    environment_there = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment_there, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    # Beside the loop, which ends when nothing is left that could write.
    waiting = threading.Thread(target=keeper.release, args=(process,), daemon=True)
    waiting.start()
    last = ""
    try:
        for line in process.stdout:
            if last:
                say(f"  {printable(last)}")
            last = line.decode("utf-8", "replace").rstrip("\n")
    finally:
        process.stdin.close()  # had it not ended, it would now
        waiting.join()
        process.stdout.close()
    code = process.returncode
    if code not in (0, 1) or not last.startswith("{"):
        raise ReplayError(f"the recorded code could not repeat it (exit code {code}; the reason is above)")
    return _new_run(last, outputs)


def _new_run(text: str, outputs: Path) -> Path:
    """The run folder that the recorded code says it made. Raises ReplayError for what is no run below outputs."""
    try:
        said: Any = json.loads(text)
        path = Path(said["replay"])
        if not (path.resolve().is_relative_to(outputs) and (path / "run.json").is_file()):
            raise ValueError("no run of the outputs folder")
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise ReplayError(f"the recorded code named no new run in {outputs} ({printable(text)[:100]})") from error
    return path


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder of this process. Those of processes that were killed are removed first, with their worktrees."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_if_dead(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    with open(folder / "lock", "w") as held:  # the kernel releases it when the process ends
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    facts = folder.lstat()
    if folder.is_symlink() or not folder.is_dir() or facts.st_uid != os.getuid():
        return
    lock = folder / "lock"
    if not lock.exists():
        if time.time() - facts.st_mtime > NAMELESS_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        # By its full name, and no "prune", which would forget the user's own worktrees on drives that are not mounted.
        _git("worktree", "remove", "--force", str(folder / "tree"))
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into Interrupted, so that the child and the worktree end, too; once they end, no more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for further in (signal.SIGTERM, signal.SIGINT):
            signal.signal(further, signal.SIG_IGN)
        raise Interrupted("the replay was stopped, and its worktree removed")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _git(*arguments: str, failing: str = "", given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git in our source tree. failing: a failure raises ReplayError with these words. given: its standard input."""
    command = ["git", "-C", str(SOURCE_TREE), *SAFE_GIT, *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, input=given, timeout=120, env=git_environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReplayError(f"--from-commit needs git ({error})") from error
    if failing and answer.returncode:
        said = printable(" ".join(answer.stderr.decode("utf-8", "replace").split()))
        raise ReplayError(f"{failing}: {said[:300]}")
    return answer
