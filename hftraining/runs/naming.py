"""What a run folder is called beside others of one name: its date and time, and what sets it apart from them."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hftraining.core.errors import UserError
from hftraining.core.values import canonical, plain
from hftraining.runs.folder import read_config_diff, runs_in
from hftraining.runs.identity import cannot_change_a_number
from hftraining.runs.manifest import read_facts
from hftraining.runs.record import DATED

MOST_PARTS, MOST_OF_A_VALUE, MOST_CHARACTERS = 3, 20, 80
MOST_RUNS = 50  # the newest ones of a folder are looked at


def name_apart(parent: Path, signature: str, delta: Mapping[str, Any]) -> str | None:
    """The date and time and what differs, such as 2026-01-31_12-00-00_max_steps-20_seed-2; None where nothing does.

    parent: outputs/kind/name. delta: the run's own, from the defaults. Only runs of another signature count, and only
    fields that can change a number. A folder that cannot be read is passed over: it is no reason not to begin a run.
    The text is one for a command line: letters, digits, points, hyphens and underscores.
    """
    names = dict[str, None]()
    for folder in runs_in(parent)[-MOST_RUNS:]:
        try:
            if read_facts(folder).get("signature") != signature:
                names |= dict.fromkeys(_differing(delta, read_config_diff(folder)))
        except UserError:
            continue
    parts = [f"{_text(name.rpartition('.')[2])}-{_text(delta[name]) if name in delta else 'default'}" for name in names]
    if not parts:
        return None
    said = "_".join(parts[:MOST_PARTS]) + (f"_and-{len(parts) - MOST_PARTS}-more" if len(parts) > MOST_PARTS else "")
    return f"{datetime.now().strftime(DATED)}_{said[:MOST_CHARACTERS]}".rstrip(".")


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in ours.keys() | theirs.keys() if not cannot_change_a_number(str(name)))
    return [name for name in names if canonical(ours.get(name)) != canonical(theirs.get(name))]


def _text(value: Any) -> str:
    """A value in letters that no shell and no file system reads as anything else."""
    said = "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(plain(value))
    plainly = re.sub(r"\.{2,}|[^A-Za-z0-9._-]+", "-", said)
    return plainly.strip("-.")[:MOST_OF_A_VALUE] or "none"
