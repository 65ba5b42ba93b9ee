"""Kill a kind of run at every point of its writing, resume it, and say where it does not end as if undisturbed.

python -m tests.crash.every_point base|finetune|sweep|replay [--every N] [--first K] [--mode kill|tear|full|random]

kill: at the point. tear: with half of a write done. full: from the point on the disk is full, until the run is resumed.
random: --count kills at random moments instead, some of them of a resumed run.
"""

import argparse
import collections
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.crash.kinds import TINY, Scene, differences, scene
from tests.crash.server import COUNT, FULL, KILL, TEAR, Ended, Server

MODES = {"kill": KILL, "tear": TEAR, "full": FULL}
KILLED = -9


def tried(made: Scene, point: int, mode: int, wanted: dict[str, object]) -> tuple[str, list[str]]:
    """Where the command was killed or met a full disk, and what is wrong after it was resumed."""
    made.fresh()
    stopped = made.go(mode=mode, point=point)
    where = stopped.points[point - 1] if len(stopped.points) >= point else "beyond its end"
    if stopped.code == 0:
        return where, differences(made.end(), wanted)
    if mode == FULL and (stopped.code != 2 or len(stopped.err.splitlines()) != 1):
        return where, [f"a full disk ends with {stopped.code}: {stopped.err[-400:]}"]
    if mode != FULL and stopped.code != KILLED:
        return where, [f"exit code {stopped.code} in place of a kill: {stopped.err[-300:]}"]
    return where, after(made, made.resume(), wanted)


def after(made: Scene, resumed: Ended, wanted: dict[str, object]) -> list[str]:
    """What is wrong after a run was resumed to its end."""
    is_done = resumed.code == 2 and "is finished: there is nothing to resume" in resumed.err
    if resumed.code and not is_done:
        return [f"resume ends with {resumed.code}: {resumed.err[-400:]}"]
    return differences(made.end(), wanted)


def killed_at_random(
    made: Scene, chance: random.Random, seconds: float, wanted: dict[str, object]
) -> tuple[int, list[str]]:
    """Kill a command once or more often at random moments; how often that was, and what is wrong in the end."""
    made.fresh()
    ended, kills = made.go(kill_after=chance.uniform(0.0, seconds)), 0
    while ended.code == KILLED:
        kills += 1
        again = chance.random() < 0.4
        ended = made.resume(kill_after=chance.uniform(0.0, seconds)) if again else made.resume()
    return kills, after(made, ended, wanted)


def undisturbed(made: Scene) -> tuple[dict[str, object], int]:
    """How the command ends, and at how many points it can be killed."""
    made.fresh()
    ended = made.go(mode=COUNT)
    assert ended.code == 0, ended.err
    return made.end(), len(ended.points)


def trials(
    made: Scene, options: argparse.Namespace, wanted: dict[str, object], points: int
) -> Iterator[tuple[str, list[str]]]:
    """Each trial's words and what is wrong after it."""
    if options.mode != "random":
        for point in range(options.first, points + 1, options.every):
            where, wrong = tried(made, point, MODES[options.mode], wanted)
            yield f"point {point} ({re.sub(r'[0-9a-f]{8}', 'x', where)})", wrong
        return
    began = time.monotonic()
    undisturbed(made)
    seconds, chance, kills = time.monotonic() - began, random.Random(options.first), 0
    while kills < options.count:
        more, wrong = killed_at_random(made, chance, seconds, wanted)
        kills += more
        yield f"{more} kills", wrong
    print(f"{kills} kills", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("base", "finetune", "sweep", "replay"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="the first point, or the seed of random kills")
    parser.add_argument("--mode", choices=(*MODES, "random"), default="kill")
    parser.add_argument("--count", type=int, default=100, help="of random kills")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="crash-points-"))
    with Server(place) as server:
        made = scene(options.kind, server, place)
        warm(made, place)
        wanted, points = undisturbed(made)
        again, _ = undisturbed(made)
        assert (apart := differences(again, wanted)) == [], apart
        counts = collections.Counter[str]()
        for words, wrong in trials(made, options, wanted, points):
            counts["wrong" if wrong else "right"] += 1
            if wrong:
                print(f"{options.kind} {words}: {wrong[:3]}", flush=True)
        print(f"{options.kind}, {options.mode}: {points} points, every {options.every}: {dict(counts)}", flush=True)


def warm(made: Scene, place: Path) -> None:
    """One run elsewhere, after which the forks of the server are quick."""
    places = {"output_dir": place / "warm", "evidence.ledger": place / "warm" / "ledger.sqlite"}
    bars = {"stocks.path": made.prepared / "bars"}
    own = [word for word in TINY if not word.startswith("stocks.path")]
    made.server.warm(*own, *(f"{name}={value}" for name, value in (places | bars).items()))


if __name__ == "__main__":
    main()
