"""A replay that is killed at any moment, and started again, is the replay that nobody killed."""

import os
import random
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from hfinference import load_model
from hfinference.live.journal import Journal
from hfinference.live.latch import resume
from hfinference.live.risk import Halt
from hftraining.runs.ledger import Ledger
from tests.hfinference.live.paper import content, ends, in_a_child, kill_at_write, killed_after, replayed

KILLS = int(os.environ.get("HFTRAINING_KILLS", "100" if os.environ.get("HFTRAINING_LONG") else "30"))
SHORTS = ("portfolio=long_short", "profit_tracker=default", "profit_tracker.stop_loss=0.03", "profit_tracker.lag=2")


@pytest.fixture(scope="module")
def days(own):
    return load_model(own).days["test"]


def whole(own, first, last, folder, *words):
    replayed(own, first, last, folder, *words)
    return content(folder)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), SHORTS], ids=["edge", "shorts, stops, lag 2"])
def test_a_replay_killed_at_random_moments_is_the_same_to_the_byte(own, days, tmp_path, words):
    began = time.monotonic()
    expected = whole(own, *days, tmp_path / "whole", *words)
    seconds = time.monotonic() - began
    draw, killed, n = random.Random(7), 0, 0
    while killed < KILLS // 2:
        n += 1
        folder = tmp_path / f"killed{n}"

        def go_on(folder=folder):
            replayed(own, *days, folder, *words)

        # One in five while it starts, the others once it trades.
        while killed < KILLS // 2 and killed_after(
            go_on, draw.uniform(0.0, seconds / 8), None if draw.random() < 0.2 else folder
        ):
            killed += 1
        child = in_a_child(go_on)
        assert ends(child) == 0
        assert content(folder) == expected


@pytest.mark.slow
def test_a_replay_killed_between_any_two_writes_is_the_same_to_the_byte(own, tmp_path):
    sessions = load_model(own).days["test"]
    first, words = sessions[0], ("portfolio=tilt", "profit_tracker=default", "profit_tracker.whole_shares=true")
    last = str(np.busday_offset(first, 2, roll="forward"))
    expected = whole(own, first, last, tmp_path / "whole", *words)
    number, every = 0, 1 if KILLS >= 1000 else 17
    while True:
        number += every
        folder = tmp_path / f"killed{number}"

        def until_the_write(folder=folder, number=number):
            kill_at_write(number)
            replayed(own, first, last, folder, *words)

        if not ends(in_a_child(until_the_write)):
            break
        replayed(own, first, last, folder, *words)
        assert content(folder) == expected, number
    assert number > 50 and content(folder) == expected


def test_a_replay_killed_a_few_times_is_the_same_to_the_byte(own, days, tmp_path):
    first, last = days[0], str(np.busday_offset(days[0], 8, roll="forward"))
    expected = whole(own, first, last, tmp_path / "whole")
    ledger = Ledger(Path(load_model(own).config.evidence.ledger))
    rows = len(ledger.entries())
    for number in (1, 40, 90, 10_000):

        def until_the_write(number=number):
            kill_at_write(number)
            replayed(own, first, last, tmp_path / "killed")

        assert ends(in_a_child(until_the_write)) == (-signal.SIGKILL if number < 10_000 else 0)
    assert content(tmp_path / "killed") == expected
    assert len(ledger.entries()) == rows and ledger.entries()[-1].status == "done"  # the same trial, counted once


@pytest.mark.slow
def test_a_disk_that_is_full_halts_by_name_and_with_room_again_the_replay_goes_on(own, days, tmp_path):
    first, last = days[0], str(np.busday_offset(days[0], 30, roll="forward"))
    expected = whole(own, first, last, tmp_path / "whole")
    folder, room = tmp_path / "full", (tmp_path / "whole" / "journal.sqlite").stat().st_size - 2**14

    def with_little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        try:
            replayed(own, first, last, folder)
        except Halt as stopped:
            os._exit(7 if stopped.name == "disk" else 8)

    assert ends(in_a_child(with_little_room)) == 7
    with Journal.read(folder) as journal:
        journal.check()
        assert 3 < len(journal.sessions()) < len(expected["sessions"]) and journal.halted() is not None
    with pytest.raises(Halt):
        replayed(own, first, last, folder)
    resume(folder)
    replayed(own, first, last, folder)
    found = content(folder)
    assert all(found[name] == rows for name, rows in expected.items() if name != "halts")
