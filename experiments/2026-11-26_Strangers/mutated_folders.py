"""Hand mutated run folders to every command that reads one: python mutated_folders.py [FIRST] [NUMBER].

Prints how the commands ended, and each folder with which one did not end as it must.
"""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bars_of import make_bars, write_csv_files
from tests.strangers import TEMPLATES, make_templates, tried


def main() -> None:
    """Print the table."""
    first, number = (int(text) for text in (*sys.argv[1:], *("0", "300")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory(prefix="strangers-") as temporary:
        place = Path(temporary)
        os.environ["XDG_STATE_HOME"] = str(place / "state")
        (place / "bars").mkdir()
        bars = write_csv_files(make_bars(n_sessions=500, seed=3), place / "bars")
        templates = make_templates(bars, place / "outputs")
        counts: Counter[tuple[str, object]] = Counter()
        seconds = memory = 0.0
        for seed in range(first, first + number):
            found = tried(seed, templates, place)
            counts[found.command, found.code] += 1
            seconds, memory = max(seconds, found.seconds), max(memory, found.memory)
            if found.wrong:
                counts[found.command, "wrong"] += 1
                print(f"seed {seed}: {found.command}: {found.change}: {found.wrong}\n  {found.said[-700:]}", flush=True)
        codes = sorted({code for _, code in counts}, key=str)
        print(f"{'command':12}" + "".join(f"{code!s:>8}" for code in codes))
        for command in TEMPLATES:
            print(f"{command:12}" + "".join(f"{counts[command, code]:8}" for code in codes))
        print(f"{'all':12}" + "".join(f"{sum(counts[c, code] for c in TEMPLATES):8}" for code in codes))
        print(f"longest {seconds:.1f} s of CPU, most memory {memory / 1024:.0f} MB more than before")


if __name__ == "__main__":
    main()
