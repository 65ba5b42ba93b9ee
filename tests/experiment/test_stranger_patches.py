"""Attacks by a run folder whose code.patch, or commit, or git settings around it, would run a stranger's code."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hftraining.__main__ import main
from hftraining.core.errors import UserError
from hftraining.experiment import recorded_code
from hftraining.experiment.config import load_config
from hftraining.experiment.recorded_code import PREFIX, replay_from_commit
from hftraining.experiment.replay import ReplayError, known_causes
from hftraining.runs.folder import read_run
from tests.runs_of import edit_run_json, own_copy

pytestmark = pytest.mark.slow  # attacks: many, and none of them is likely to come back by itself

# A project of an earlier day: its replay is a copy of the run.
PROJECT = {
    "train.py": "print('train')\n",
    "conf/config.yaml": "seed: 1\n",
    "hftraining/__init__.py": "",
    "hftraining/experiment/replay.py": "",
    "hftraining/old.py": "# a line to know it by\n" * 9,
    "hftraining/__main__.py": """
import json, pathlib, shutil, sys
run, outputs = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[4])
again = outputs / "base" / "again"
shutil.copytree(run, again)
print("trained with \\x1b[2J the old code")
print(json.dumps({"replay": str(again)}))
""",
}


def git(tree: Path, *words: str, given: bytes = b"") -> bytes:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    return subprocess.run(["git", "-C", tree, *who, *words], check=True, capture_output=True, input=given).stdout


class Case:
    """A repository, a run folder that names a commit of it, and the file that an attack would make."""

    def __init__(self, home: Path, run: Path):
        self.home, self.tree, self.run, self.marker = home, home / "project", run, home / "marker"
        for name, text in PROJECT.items():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(text)
        git(self.tree, "init", "-q")
        self.commit = self.committed()

    def committed(self) -> str:
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-qm", "x")
        return git(self.tree, "rev-parse", "HEAD").decode().strip()

    def names(self, **code) -> None:
        """What run.json says of the code."""
        known = {"commit": self.commit, "dirty": (self.run / "code.patch").exists(), "digest": None, "patch": None}
        edit_run_json(self.run, lambda manifest: manifest.update(code=known | code))

    def patch(self, text: str | bytes) -> None:
        (self.run / "code.patch").write_bytes(text.encode() if isinstance(text, str) else text)
        self.names()

    def patch_of(self, change, *options: str) -> None:
        """The patch that git makes of a change of the tree, which is then undone."""
        change(self.tree)
        git(self.tree, "add", "-A", "--intent-to-add")
        patch = git(self.tree, "diff", "HEAD", "--binary", *options)
        git(self.tree, "reset", "-q", "--hard")
        self.patch(patch)

    def evil(self, name: str) -> str:
        """A program that makes the marker and passes on what it reads."""
        path = self.home / name
        path.write_text(f"#!/bin/sh\ntouch {self.marker}\nexec cat\n")
        path.chmod(0o755)
        return str(path)

    def go(self, trust: bool = True) -> list[str]:
        """Replay it; returns what was said."""
        said: list[str] = []
        replay_from_commit(self.run, self.home / "outputs", said.append, trust=trust)
        return said


@pytest.fixture
def case(reference, tmp_path, monkeypatch) -> Case:
    made = Case(tmp_path, own_copy(Path(reference["folder"]), tmp_path / "theirs"))
    (made.run / "code.patch").unlink(missing_ok=True)  # where these tests run on uncommitted code
    made.names()
    monkeypatch.setattr(recorded_code, "SOURCE_TREE", made.tree)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield made
    assert not list(tmp_path.glob(f"{PREFIX}*")), "no temporary folder is left"
    assert git(made.tree, "worktree", "list").count(b"\n") == 1, "no worktree is left"


def new_file(name: str, text: str = "import os", mode: str = "100644") -> str:
    return f"diff --git a/{name} b/{name}\nnew file mode {mode}\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{text}\n"


def link(name: str, target: str) -> str:
    return new_file(name, target, "120000") + "\\ No newline at end of file\n"


def test_without_trust_a_patch_is_shown_and_not_run_and_with_trust_it_runs(case, capsys):
    case.patch_of(lambda tree: (tree / "hftraining/__init__.py").write_text(f"open({str(case.marker)!r}, 'w')\n"))
    assert main(["replay", str(case.run), "--from-commit"]) == 2
    out, err = capsys.readouterr()
    assert f"code: commit {case.commit}\n" in out and "  hftraining/__init__.py  +1 -0\n" in out
    assert err.count("\n") == 1 and "nothing was run" in err and "--trust" in err
    assert not case.marker.exists() and not (case.home / "outputs").exists()
    assert case.go()[-1] == "  trained with ?[2J the old code"
    assert case.marker.exists(), "this patch is one that would have run"


def test_a_long_list_of_changed_files_is_cut(case):
    case.patch("".join(new_file(f"hftraining/n{number:02d}.py") for number in range(50)))
    assert [line for line in case.go() if "more" in line] == ["  and 30 more"]


def test_the_terminal_is_asked_and_no_is_the_default(case, monkeypatch):
    case.patch(new_file("hftraining/new.py"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for answer, runs in (("", False), ("n", False), ("yes please", False), ("y", True)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        if runs:
            case.go(trust=False)
        else:
            with pytest.raises(ReplayError, match="nothing was run"):
                case.go(trust=False)


def test_a_clean_commit_of_a_branch_needs_no_trust(case):
    assert case.go(trust=False)[0] == f"code: commit {case.commit[:12]}, in a temporary worktree"


def test_a_commit_on_no_branch_needs_trust_though_a_tag_or_remote_holds_it(case):
    git(case.tree, "checkout", "-q", "--detach")
    (case.tree / "hftraining/__init__.py").write_text(f"open({str(case.marker)!r}, 'w')\n")
    theirs = case.committed()
    git(case.tree, "tag", "v9")
    git(case.tree, "update-ref", "refs/remotes/fork/main", theirs)
    git(case.tree, "checkout", "-q", "-")
    case.names(commit=theirs)
    with pytest.raises(ReplayError, match="nothing was run"):
        case.go(trust=False)
    assert not case.marker.exists()


REFUSED = {
    "a link": (link("hftraining/link.py", "/etc/passwd"), "gets the mode 120000"),
    "a link in the place of a folder": (link("conf/new.yaml", "../.."), "gets the mode 120000"),
    "out of the tree": (new_file("../evil.py"), "does not fit its commit"),
    "out of the tree, from within": (new_file("hftraining/../../evil.py"), "does not fit its commit"),
    "an absolute path": (new_file("/tmp/evil.py").replace("a//", "/").replace("b//", "/"), "refused|does not fit"),
    "a hook": (new_file(".git/hooks/post-checkout.py"), "does not fit its commit"),
    "a hook, in capitals": (new_file(".GIT/hooks/x.py"), "does not fit its commit|is no source file"),
    "attributes": (new_file(".gitattributes", "* filter=evil"), "is no source file"),
    "attributes of a folder": (new_file("hftraining/.gitattributes", "* filter=evil"), "is no source file"),
    "modules": (new_file(".gitmodules", "[submodule]"), "is no source file"),
    "a submodule": (new_file("hftraining/sub.py", f"Subproject commit {'a' * 40}", "160000"), "gets the mode 160000"),
    "code that Python starts by itself": (new_file("sitecustomize.py"), "is no source file"),
    "code that pytest starts by itself": (new_file("tests/conftest.py"), "is no source file"),
    "a library": (new_file("hftraining/fast.so"), "is no source file"),
    "a path file": (new_file("hftraining/x.pth"), "is no source file"),
    "a program": (new_file("hftraining/run.py", mode="100755"), "gets the mode 100755"),
    "a name that steers the terminal": (new_file('"hftraining/\\033[2J.py"'), "refused|does not fit"),
    "a name with a blank": (new_file("hftraining/a b.py"), "is no source file"),
    "no patch at all": ("#!/bin/sh\ntouch marker\n", "does not fit its commit"),
}


@pytest.mark.parametrize(("patch", "why"), REFUSED.values(), ids=list(REFUSED))
def test_a_patch_of_more_than_sources_is_refused_though_trusted(case, patch, why):
    case.patch(patch)
    before = sorted(case.home.rglob("*.py"))
    with pytest.raises(ReplayError, match=why) as caught:
        case.go()
    assert str(caught.value).isprintable()
    assert sorted(case.home.rglob("*.py")) == before and not (case.home / "outputs").exists()


CHANGES = {
    "renamed out of the sources": (
        lambda tree: (tree / "hftraining/old.py").rename(tree / "sitecustomize.py"),
        "sitec",
    ),
    "made executable": (lambda tree: (tree / "train.py").chmod(0o755), "gets the mode 100755"),
    "binary": (lambda tree: (tree / "hftraining/old.py").write_bytes(bytes(range(256)) * 9), "binary file"),
    "a link instead of a file": (
        lambda tree: ((tree / "train.py").unlink(), (tree / "train.py").symlink_to("/etc/passwd")),
        "gets the mode 120000",
    ),
}


@pytest.mark.parametrize(("change", "why"), CHANGES.values(), ids=list(CHANGES))
def test_a_patch_as_git_makes_it_is_refused_for_what_it_would_do(case, change, why):
    case.patch_of(change, "--find-renames")
    with pytest.raises(ReplayError, match=why):
        case.go()


def test_a_renamed_source_is_a_change_like_any_other(case):
    case.patch_of(lambda tree: (tree / "hftraining/old.py").rename(tree / "hftraining/young.py"), "--find-renames")
    assert [line for line in case.go() if line.startswith("  hftraining")] == [
        "  hftraining/old.py  +0 -9",
        "  hftraining/young.py  +9 -0",
    ]


def test_hooks_watchers_filters_and_drivers_of_the_repository_do_not_run(case):
    evil = case.evil("evil")
    (case.home / "hooks").mkdir()
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc", "applypatch-msg"):
        (case.home / "hooks" / hook).symlink_to(evil)
        (case.tree / ".git" / "hooks" / hook).symlink_to(evil)
    (case.tree / ".gitattributes").write_text("*.py filter=evil diff=evil merge=evil\n")
    case.commit = case.committed()
    case.patch_of(lambda tree: (tree / "hftraining/old.py").write_text("# new\n"))
    settings = {
        "core.hooksPath": str(case.home / "hooks"),
        "core.fsmonitor": evil,
        "core.pager": evil,
        "core.sshCommand": evil,
        "diff.external": evil,
        "diff.evil.command": evil,
        "diff.evil.textconv": evil,
        "merge.evil.driver": evil,
        "filter.evil.smudge": evil,
        "filter.evil.clean": evil,
        "filter.evil.process": evil,
        "filter.evil.required": "true",
        "core.attributesFile": str(case.tree / ".gitattributes"),
    }
    for name, value in settings.items():
        git(case.tree, "config", name, value)
    subprocess.run(["git", "-C", case.tree, "checkout", "-q", "HEAD"], capture_output=True)
    assert case.marker.exists(), "these settings do run where git is called without care"
    case.marker.unlink()
    assert case.go()[-1].endswith("the old code")
    assert not case.marker.exists()
    for name in settings:
        git(case.tree, "config", "--unset", name)


@pytest.mark.parametrize("name", ["GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_SSH_COMMAND", "GIT_DIR", "GIT_EXEC_PATH"])
def test_variables_of_git_have_no_part_in_it(case, monkeypatch, name):
    case.patch(new_file("hftraining/new.py"))
    monkeypatch.setenv(name, case.evil("evil"))
    case.go()
    monkeypatch.delenv(name)
    assert not case.marker.exists()


@pytest.mark.parametrize(
    "commit",
    [
        "--upload-pack=touch marker",
        "--output=marker",
        "-h",
        "HEAD",
        "master",
        "a" * 12,
        "A" * 40,
        f"{'a' * 40} --force",
        f"{'a' * 40}\n--force",
        "$(touch marker)",
        "../../etc",
        ["a" * 40],
        {"commit": 1},
        7,
        "ext::sh -c touch% marker",
        "\x1b[2J",
    ],
)
def test_a_commit_that_is_no_full_hash_is_refused(case, commit, monkeypatch):
    monkeypatch.chdir(case.home)
    case.names(commit=commit)
    with pytest.raises(UserError) as caught:
        case.go()
    assert str(caught.value).isprintable() and not case.marker.exists()


def read_run_as_it_is(folder):
    """A run whose run.json is past the schema of its readers."""
    known = json.loads((folder / "run.json").read_text())
    edit_run_json(folder, lambda facts: [facts.pop(name) for name in ("versions", "python", "platform")])
    return dataclasses.replace(read_run(folder), manifest=known)


def test_what_run_json_says_cannot_steer_the_terminal(case):
    steering = "\x1b[2J\r\n"
    edit_run_json(case.run, lambda known: known["versions"].update({"numpy": steering, steering: "1"}))
    edit_run_json(case.run, lambda known: known.update(python=[steering], platform={steering: 1}))
    with pytest.raises(UserError, match="is damaged") as refused:
        read_run(case.run)
    assert str(refused.value).isprintable()
    run = read_run_as_it_is(case.run)
    causes = known_causes(run, load_config(case.run / "config.yaml"))
    assert len(causes) >= 4 and all(cause.text.isprintable() for cause in causes)


def test_a_patch_that_is_a_link_a_folder_or_too_large_is_refused(case):
    secret = case.home / "private.py"
    secret.write_text(new_file("hftraining/new.py"))
    (case.run / "code.patch").symlink_to(secret)
    case.names()
    with pytest.raises(UserError, match="is a symbolic link"):
        case.go()
    (case.run / "code.patch").unlink()
    (case.run / "code.patch").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        case.go()
    (case.run / "code.patch").rmdir()
    os.mkfifo(case.run / "code.patch")
    with pytest.raises(UserError, match="is a pipe"):
        case.go()
    (case.run / "code.patch").unlink()
    case.patch(new_file("hftraining/new.py") + "\n" * 1_000_001)
    with pytest.raises(ReplayError, match="more than a run writes"):
        case.go()


def test_a_link_or_a_submodule_in_the_commit_itself_is_refused(case):
    (case.tree / "hftraining" / "link.py").symlink_to("/etc/passwd")
    case.names(commit=case.committed())
    with pytest.raises(ReplayError, match="is a link or another repository"):
        case.go()


@pytest.mark.parametrize("answer", ["/etc", "..", [], {}, None, "base/nowhere", "x" * 5000, "\0"])
def test_an_answer_of_the_recorded_code_that_names_no_new_run_is_refused(case, answer):
    text = f"import sys\nprint({json.dumps({'replay': answer})!r})\n"
    (case.tree / "hftraining" / "__main__.py").write_text(text)
    case.names(commit=case.committed())
    with pytest.raises(ReplayError, match="named no new run"):
        case.go()
