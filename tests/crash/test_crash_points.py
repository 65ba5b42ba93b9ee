"""A run that is killed while it writes, at some of its points: resumed, it ends as if undisturbed.

tests/crash/every_point.py goes through all of them.
"""

import os
import random

import pytest

from tests.crash.every_point import after, killed_at_random, tried, undisturbed, warm
from tests.crash.kinds import Scene, differences, scene
from tests.crash.server import FULL, KILL, TEAR, Server

KINDS = {"base": 6, "finetune": 6, "sweep": 4, "replay": 2}  # and how many points are tried
if not os.environ.get("HFTRAINING_LONG"):
    KINDS |= {"base": 3, "finetune": 3, "sweep": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module", params=KINDS)
def made(request, server, tmp_path_factory) -> tuple[Scene, dict, int]:
    """A kind of run in its folder, how it ends undisturbed, and how many points it has."""
    place = tmp_path_factory.mktemp(request.param)
    made = scene(request.param, server, place)
    if request.param == "base":
        warm(made, place)
    return made, *undisturbed(made)


def drawn(points: int, count: int, seed: int) -> list[int]:
    """Points from all parts of a run, one at random from each."""
    chance = random.Random(seed)
    return [1 + int((part + chance.random()) * points / count) for part in range(count)]


def count_of(made: Scene) -> int:
    return KINDS["replay" if made.by == "hftraining" else "sweep" if "-m" in made.command else "base"]


@pytest.mark.slow
def test_a_run_killed_at_any_point_of_its_writing_and_resumed_ends_with_the_same_bytes_and_one_row(made):
    scene, wanted, points = made
    assert len(wanted) > 10 and wanted["rows"] and wanted["openings"]
    wrong = {point: tried(scene, point, KILL, wanted) for point in drawn(points, count_of(scene), 1)}
    assert {point: found for point, found in wrong.items() if found[1]} == {}


@pytest.mark.slow
@pytest.mark.long
def test_a_run_killed_in_the_middle_of_a_write_and_resumed_ends_with_the_same_bytes_and_one_row(made):
    scene, wanted, points = made
    wrong = {point: tried(scene, point, TEAR, wanted) for point in drawn(points, count_of(scene) // 2, 2)}
    assert {point: found for point, found in wrong.items() if found[1]} == {}


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_meets_a_full_disk_says_so_in_one_line_and_is_resumed_once_there_is_space(made):
    scene, wanted, points = made
    wrong = {point: tried(scene, point, FULL, wanted) for point in drawn(points, count_of(scene) // 2, 3)}
    assert {point: found for point, found in wrong.items() if found[1]} == {}


@pytest.mark.slow
@pytest.mark.long
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(made):
    scene, wanted, _ = made
    chance = random.Random(4)
    for _ in range(2):
        kills, wrong = killed_at_random(scene, chance, 2.0, wanted)
        assert wrong == [], kills


# What compares is the same for all kinds.
@pytest.mark.slow
@pytest.mark.parametrize(
    "made", ["base", *(pytest.param(kind, marks=pytest.mark.long) for kind in [*KINDS][1:])], indirect=True
)
def test_the_comparison_of_two_endings_sees_a_changed_byte_a_lost_file_and_a_second_row(made):
    scene, wanted, _ = made
    undisturbed(scene)
    run = max((scene.cwd / "outputs").rglob("equity.parquet"))
    run.write_bytes(run.read_bytes() + b"x")
    assert len(differences(scene.end(), wanted)) == 1
    run.unlink()
    assert len(differences(scene.end(), wanted)) == 1
    assert len(differences(wanted | {"rows": [*wanted["rows"], wanted["rows"][0]]}, wanted)) == 1
    assert after(scene, scene.run("resume=nowhere", by="train"), wanted)
