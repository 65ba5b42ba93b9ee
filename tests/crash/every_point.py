"""Kill a kind of run at every point of its writing, resume it, and say where it does not end as if undisturbed.

python -m tests.crash.every_point base|finetune|sweep|replay [--every N] [--first K] [--mode kill|tear]
"""

import argparse
import collections
import re
import tempfile
from pathlib import Path

from tests.crash.kinds import TINY, Scene, differences, scene
from tests.crash.server import COUNT, KILL, TEAR, Server

MODES = {"kill": KILL, "tear": TEAR}


def tried(made: Scene, point: int, mode: int, wanted: dict[str, object]) -> tuple[str, list[str]]:
    """Where the command was killed, and what is wrong after it was resumed."""
    made.fresh()
    killed = made.go(mode=mode, point=point)
    where = killed.points[point - 1] if len(killed.points) >= point else "beyond its end"
    if killed.code == 0:
        return where, differences(made.end(), wanted)
    if killed.code != -9:
        return where, [f"exit code {killed.code} in place of a kill: {killed.err[-300:]}"]
    again = made.resume()
    is_done = again.code == 2 and "is finished: there is nothing to resume" in again.err
    if again.code and not is_done:
        return where, [f"resume ends with {again.code}: {again.err[-400:]}"]
    return where, differences(made.end(), wanted)


def undisturbed(made: Scene) -> tuple[dict[str, object], int]:
    """How the command ends, and at how many points it can be killed."""
    made.fresh()
    ended = made.go(mode=COUNT)
    assert ended.code == 0, ended.err
    return made.end(), len(ended.points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("base", "finetune", "sweep", "replay"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--mode", choices=MODES, default="kill")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="crash-points-"))
    with Server(place) as server:
        made = scene(options.kind, server, place)
        away = (
            f"output_dir={place}/warm",
            f"evidence.ledger={place}/warm/ledger.sqlite",
            f"stocks.path={made.cwd}/bars",
        )
        server.warm(*(word for word in TINY if not word.startswith("stocks.path")), *away)
        wanted, points = undisturbed(made)
        again, _ = undisturbed(made)
        assert (apart := differences(again, wanted)) == [], apart
        counts = collections.Counter[str]()
        for point in range(options.first, points + 1, options.every):
            where, wrong = tried(made, point, MODES[options.mode], wanted)
            counts["wrong" if wrong else "right"] += 1
            if wrong:
                print(f"{options.kind} point {point} ({re.sub(r'[0-9a-f]{8}', 'x', where)}): {wrong[:3]}", flush=True)
        print(f"{options.kind}, {options.mode}: {points} points, every {options.every}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
