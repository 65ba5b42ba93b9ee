"""Whatever is raised ends in one line and an exit code: hftraining/core/endings.py."""

import errno
import os
import resource
import signal
import sys
import time

import numpy as np
import pytest
import torch

from hftraining.core.command import run_command
from hftraining.core.endings import ending_of, foreseen, in_the_run, is_full, one_line_endings, stopped_by_signals
from hftraining.core.errors import ConfigError, Fault, Interrupted, UserError, in_a_line, listed, status_of


def ended(capsys, act, **settings) -> tuple[int, str]:
    """The exit code and what stderr shows of a command that does this."""
    code = run_command(lambda arguments: act(), [], **settings)
    return code, capsys.readouterr().err


def raises(error: BaseException):
    def act():
        raise error

    return act


@pytest.fixture
def run(tmp_path):
    """A folder that is a run, as far as an ending looks."""
    folder = tmp_path / "outputs" / "base" / "x" / "now"
    folder.mkdir(parents=True)
    for name in ("run.json", "config.yaml", "train.log"):
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk of a/b: free some"),
        (errno.EDQUOT, "quota of a/b"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EACCES, "a/b: permission denied"),
        (errno.EROFS, "a/b lies on a disk that can only be read"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.ENOENT, "a/b does not exist, or was deleted"),
        (errno.ENOTDIR, "a file lies where a folder is needed"),
        (errno.ENOMEM, "not enough memory"),
        (errno.EIO, "the disk fails"),
    ],
)
def test_what_a_disk_or_a_limit_does_is_the_users_and_names_the_place(capsys, number, words):
    code, line = ended(capsys, raises(OSError(number, os.strerror(number), "a/b")))
    assert code == 2 and line.startswith("error: ") and words in line and line.count("\n") == 1


def test_the_words_of_other_libraries_for_no_space_and_no_memory_are_understood():
    class SafetensorError(Exception):
        pass

    for error in (
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    ):
        assert "no space left" in str(foreseen(error))
    with pytest.raises(MemoryError) as of_numpy:
        np.empty((10**9, 10**9), np.int8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty((10**9, 10**8), dtype=torch.int8)
    for raised in (of_numpy, of_torch):
        assert str(foreseen(raised.value)).startswith("not enough memory")
    assert "threads" in str(foreseen(RuntimeError("can't start new thread")))


def test_the_cause_that_a_library_wraps_is_found_and_other_errors_are_ours():
    wrapped = ValueError("something else")
    wrapped.__cause__ = PermissionError(errno.EACCES, "no", "x")
    assert "x: permission denied" in str(ending_of(wrapped))
    assert foreseen(ValueError("x")) is None and isinstance(ending_of(ValueError("x")), Fault)
    own = ConfigError("mine")
    assert ending_of(own) is own
    assert str(ending_of(KeyError("y"), lambda error: ConfigError("explained"))) == "explained"


def test_an_error_within_a_run_names_the_command_that_goes_on(capsys, run):
    def act():
        with in_the_run(run), in_the_run(run / "candidates" / "lora"):
            raise OSError(errno.ENOSPC, "no", str(run / ".metrics.jsonl.0123abcd.tmp"))

    with pytest.raises(SystemExit) as stopped, one_line_endings():
        with in_the_run(run):
            act()
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert f"no space left on the disk of {run}/metrics.jsonl: free some; once that is mended, python train" in line
    assert line.endswith(f"resume={run} goes on\n")
    assert ended(capsys, act, goes_on="again") == (2, line.replace(f"python train.py resume={run} goes on", "again"))


def test_a_run_folder_that_was_deleted_is_named_and_not_resumed(capsys, run):
    def act():
        with in_the_run(run):
            (run / "run.json").unlink()
            (run / "run.json").read_bytes()

    assert ended(capsys, act) == (2, f"error: {run} was deleted while it was written: begin again\n")


def test_a_fault_of_ours_within_a_run_has_its_traceback_in_the_log_of_the_run(capsys, run, state):
    def act():
        with in_the_run(run):
            return 1 // 0

    code, line = ended(capsys, act)
    assert code == 1 and line.count("\n") == 1
    assert "our fault: ZeroDivisionError: integer division or modulo by zero (at test_endings.py:" in line
    assert f"the traceback is in {run}/train.log" in line and "return 1 // 0" in (run / "train.log").read_text()
    assert not state.exists()


def test_the_log_of_a_run_that_is_a_link_is_not_written_through(capsys, run, state, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (run / "train.log").unlink()
    (run / "train.log").symlink_to(tmp_path / "mine")
    with pytest.raises(KeyError), in_the_run(run):
        raise KeyError("x")
    error = KeyError("x")
    with pytest.raises(KeyError), in_the_run(run):
        raise error
    assert str(state / "faults") in str(ending_of(error)) and (tmp_path / "mine").read_text() == "mine"


def test_a_traceback_that_can_be_written_nowhere_still_ends_in_a_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    code, line = ended(capsys, raises(ZeroDivisionError()))
    assert code == 1 and "could be written nowhere" in line and line.count("\n") == 1


def test_a_line_is_short_and_printable():
    assert in_a_line("a\n b\x1b[31m\u202e\udcff\x00") == r"a b\x1b[31m\u202e\udcff\x00"
    assert in_a_line("\u00fc\u65e5") == "\u00fc\u65e5"
    assert in_a_line("x" * 59_000, 100) == "x" * 100 + " ... and 58,900 more characters"
    assert listed(range(3)) == "0, 1, 2" and listed(range(10_000), 3) == "0, 1, 2 and 9,997 more"
    assert listed([]) == ""


def test_a_long_error_is_cut(capsys):
    code, line = ended(capsys, raises(UserError(", ".join(f"SYMBOL{n}" for n in range(10_000)))))
    assert code == 2 and len(line) < 1_300 and line.count("\n") == 1


def test_a_library_that_stops_the_process_after_a_line_of_its_own_has_refused_what_the_user_typed():
    with pytest.raises(SystemExit) as stopped, one_line_endings():
        sys.exit(1)
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped, one_line_endings(), one_line_endings():
        raise ZeroDivisionError
    assert stopped.value.code == 1


def test_sigterm_ends_a_command_with_its_line_after_everything_was_closed(capsys):
    closed = []

    def act():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            closed.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert ended(capsys, act) == (3, "interrupted: stopped by SIGTERM\n") and closed == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_a_library_turns_into_another_error_is_still_an_interruption(capsys):
    def act():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            raise UnboundLocalError("as a context manager of OmegaConf does")

    assert ended(capsys, act) == (3, "interrupted: stopped by SIGTERM\n")
    assert ended(capsys, raises(UserError("the next command"))) == (2, "error: the next command\n")


def test_a_forked_child_ends_by_the_signal_itself_and_says_nothing(capfd):
    ready, says = os.pipe()
    with stopped_by_signals():
        child = os.fork()
        if not child:
            os.write(says, b"x")  # before that, a signal is lost: Python forgets those that come while it forks
            for _ in range(1_000):  # not signal.pause(), which a signal that came just before it does not end
                time.sleep(0.01)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        ended_by = os.waitpid(child, 0)[1]
    os.close(ready), os.close(says)
    assert os.waitstatus_to_exitcode(ended_by) == -signal.SIGTERM and capfd.readouterr().err == ""


def test_a_closed_pipe_ends_a_listing_quietly_and_a_run_as_interrupted(capsys, run):
    reads, writes = os.pipe()
    os.close(reads)

    def within():
        with in_the_run(run):
            os.write(writes, b"x")

    assert ended(capsys, lambda: os.write(writes, b"x")) == (3, "")
    code, line = ended(capsys, within)
    assert code == 3 and line.startswith("interrupted: nobody reads the output any more; ")
    assert status_of(BrokenPipeError()) == Interrupted.status
    os.close(writes)


def test_real_limits_of_the_size_of_a_file_and_of_open_files_are_named(capsys, tmp_path):
    def limited(kind, most, act):
        before = resource.getrlimit(kind)

        def within():
            resource.setrlimit(kind, (most, before[1]))
            try:
                act()
            finally:
                resource.setrlimit(kind, before)

        return within

    code, line = ended(capsys, limited(resource.RLIMIT_FSIZE, 1000, lambda: (tmp_path / "f").write_bytes(b"x" * 2000)))
    assert code == 2 and "ulimit -f" in line
    code, line = ended(capsys, limited(resource.RLIMIT_NOFILE, 3, lambda: (tmp_path / "f").read_bytes()))
    assert code == 2 and "ulimit -n" in line
    assert not is_full(tmp_path / "nowhere")


def test_a_working_folder_that_was_deleted_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()

    def act():
        os.chdir("gone")
        os.rmdir(tmp_path / "gone")
        os.getcwd()

    assert ended(capsys, act) == (2, "error: the working folder does not exist, or was deleted on the way\n")
