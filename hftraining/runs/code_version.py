"""Which code ran: the commit, a digest of the sources, and the changes since the commit, as a patch.

The digest decides: two runs with the same digest ran the same code, whatever their commits. The patch makes a run of
uncommitted code repeatable: commit + code.patch = the code that ran.
"""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from hftraining.core.secret import holds_secret

SOURCE_TREE = Path(__file__).resolve().parents[2]
PATCH_FILE = "code.patch"
# What can go into the patch. A keys.yaml beside the code must not reach a run folder.
SOURCES = ("train.py", "pyproject.toml", "hftraining", "hfinference", "hydra_plugins", "conf")
SUFFIXES = (".py", ".yaml", ".toml")
# The modules that can change a number of a run. An edited sentence of a report or command makes no new version.
MAKERS_OF_NUMBERS = (
    *("core/", "market/", "trading/", "model/", "portfolio/", "evidence/", "training/", "experiment/"),
    *(
        "profit_tracker.py",
        "runs/ledger.py",
        "runs/looks.py",
        "runs/seen.py",
        "runs/trials.py",
        "runs/month_digests.py",
    ),
)
# Neither hooks nor watchers nor transports that run commands, whatever the config of a repository says.
SAFE_GIT = tuple(
    "-c core.hooksPath=/dev/null -c core.fsmonitor=false -c protocol.ext.allow=never "
    "-c core.attributesFile=/dev/null".split()
)
PATCH_BYTES = 1_000_000  # a larger patch would fill the disk in a hundred trials


def code_version(tree: Path = SOURCE_TREE) -> dict[str, Any]:
    """commit of a source tree; dirty: whether its code or config differs from the commit; digest: see source_digest.

    commit and dirty are None where the tree is not a checkout.
    """
    known: dict[str, Any] = {"commit": None, "dirty": None, "digest": source_digest(tree)}
    if not _is_checkout(tree):  # installed, perhaps inside another project's checkout
        return known
    changed = _git(tree, "status", "--porcelain", "--untracked-files=all", "--", *_pathspecs())
    commit = _git(tree, "rev-parse", "--verify", "HEAD")
    return known | {"commit": commit and commit.strip(), "dirty": None if changed is None else bool(changed)}


def source_digest(tree: Path = SOURCE_TREE, makers: tuple[str, ...] | None = MAKERS_OF_NUMBERS) -> str:
    """16 hex digits of the names and contents of the modules that make numbers.

    makers=None takes all modules, as earlier versions did.

    It leaves out config files, since each run resolves them into its own config.
    """
    package = tree / "hftraining"
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if makers is None or name.startswith(makers):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def code_patch(tree: Path = SOURCE_TREE) -> tuple[bytes, str | None]:
    """The patch from the commit to the code that ran, for `git apply`, and a note where there is none to give.

    Empty for clean code and outside of a checkout. It includes new files unless git ignores them.
    """
    if not _is_checkout(tree) or _git(tree, "rev-parse", "--verify", "HEAD") is None:
        return b"", None
    patch = _git_bytes(tree, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", *_pathspecs())
    new = _git(tree, "ls-files", "-z", "--others", "--exclude-standard", "--", *_pathspecs())
    if patch is None or new is None:
        return b"", "left out: git could not tell what was changed"
    for name in filter(None, new.split("\0")):
        # git exits with 1 because the new file differs from nothing.
        arguments = ("diff", "--no-index", "--no-ext-diff", "--no-textconv", "--no-color", "--", os.devnull, name)
        patch += _git_bytes(tree, *arguments, good=(0, 1)) or b""
    for change in patch.decode("utf-8", "replace").split("\ndiff --git "):
        path = change.partition("\n")[0].rpartition(" b/")[2]
        if holds_secret(change, pairs=not path.endswith(".py")):  # in code, password=... is seldom one
            return b"", f"left out: {path} seems to hold a secret"
    if len(patch) > PATCH_BYTES:
        return b"", f"left out: {len(patch):,} bytes of changes, more than {PATCH_BYTES:,}"
    return patch, None


def _pathspecs() -> list[str]:
    # A run has no search, whose file may hold the URL of a database.
    no_search = ":(top,exclude)conf/search"
    files = [f":(top,literal){source}" for source in SOURCES if source.endswith(SUFFIXES)]
    folders = [source for source in SOURCES if not source.endswith(SUFFIXES)]
    return [no_search, *files, *(f":(top,glob){folder}/**/*{suffix}" for folder in folders for suffix in SUFFIXES)]


def _is_checkout(tree: Path) -> bool:
    top = _git(tree, "rev-parse", "--show-toplevel")
    return top is not None and top.rstrip("\n") == str(tree)


def _git(tree: Path, *arguments: str) -> str | None:
    answer = _git_bytes(tree, *arguments)
    return None if answer is None else answer.decode("utf-8", "surrogateescape")


def _git_bytes(tree: Path, *arguments: str, good: tuple[int, ...] = (0,)) -> bytes | None:
    command = ["git", "-C", str(tree), *SAFE_GIT, *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=60, env=git_environment())
    except (OSError, subprocess.SubprocessError):  # no git
        return None
    return answer.stdout if answer.returncode in good else None  # else no checkout, or no commit yet


def git_environment() -> dict[str, str]:
    """The environment without GIT_DIR and the like, which a hook sets and which point to another repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
