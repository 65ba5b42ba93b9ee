"""What differs between runs: config, bars, code, environment, and which runs differ by their seed alone."""

import json
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hftraining.core.values import canonical, flatten, plain
from hftraining.runs.bar_digests import data_delta, read_digests
from hftraining.runs.folder import RunFolder
from hftraining.runs.identity import cannot_change_a_number
from hftraining.runs.record import dig

ENVIRONMENT = ("threads", "python", "platform", "cpu_count", "cpu", "numerics", "versions")
UNKNOWN = "not recorded"


@dataclass
class Group:
    """Runs of one config, data and code; several seeds, or repetitions."""

    label: str
    runs: list[RunFolder]

    @property
    def replicates(self) -> list[RunFolder]:
        """One finished run a seed, the last given: a repetition is no further evidence."""
        return list({run.manifest.get("seed"): run for run in self.runs if run.result}.values())

    def values(self, metric: str) -> list[float]:
        """A metric of each replicate that has it."""
        found = [dig(run.result, *metric.split(".")) for run in self.replicates]
        return [float(value) for value in found if isinstance(value, (int, float)) and math.isfinite(value)]


def group_by_seed(runs: Sequence[RunFolder]) -> list[Group]:
    """Groups in the order of their first run: same config but for the seed, same bars, same code."""
    found: dict[str, list[RunFolder]] = {}
    for run in runs:
        counted = {n: v for n, v in flatten(run.config).items() if n != "seed" and not cannot_change_a_number(n)}
        code = run.manifest.get("code") or {}
        identity = [canonical(counted), dig(run.manifest, "data", "fingerprint"), code.get("digest") or code]
        found.setdefault(json.dumps(identity, sort_keys=True), []).append(run)
    return [Group(group_label(i), members) for i, members in enumerate(found.values())]


def group_label(index: int) -> str:
    """A, B, ... Z, G27, G28, ..."""
    return string.ascii_uppercase[index] if index < 26 else f"G{index + 1}"


def run_label(group: int, index: int) -> str:
    """A1, A2, ..."""
    return f"{group_label(group)}{index + 1}"


def config_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The fields that differ, and nothing else: field, values by group, counts (whether it can change a number).

    A group of fields that was chosen as a whole, model=tiny against model=small, has one row of its own above the
    fields that this choice made differ, which are marked `chosen_by`. Within a group a value may vary (the seed, or
    what cannot change a number): then it is a list.
    """
    flat = {id(run): flatten(run.config) for group in groups for run in group.runs}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    differing = [n for n in names if len({canonical(values.get(n)) for values in flat.values()}) > 1]
    if "name" in differing and all(_name_is_derived(values) for values in flat.values()):
        differing.remove("name")
    choices = {
        name.removesuffix(".name")
        for name in differing
        if name.endswith(".name") and any(o.startswith(name.removesuffix("name")) and o != name for o in differing)
    }
    rows = []
    for name in differing:
        head, _, field = name.rpartition(".")
        choice = field == "name" and head in choices
        values = {group.label: _seen(flat[id(run)].get(name) for run in group.runs) for group in groups}
        rows.append(
            {
                "field": head if choice else name,
                "values": values,
                "counts": choice or not cannot_change_a_number(name),
                "chosen_by": head if head in choices and not choice else None,
            }
        )
    return rows


def losses_differ_in(rows: list[dict[str, Any]]) -> list[str]:
    """The fields, of those that differ, after which a forecast loss is no longer of the same thing."""
    objective = ("objective.horizons", "objective.quantiles", "objective.label", "objective.relative")
    found = [row["field"] for row in rows if row["field"] in (*objective, "profit_tracker.lag")]
    for row in rows:  # without a forecast loss eval/loss is the profit loss
        if row["field"] == "objective.forecast_weight" and 0 in row["values"].values():
            found.append(row["field"])
    return found


def data_rows(groups: Sequence[Group]) -> dict[str, Any]:
    """Whether all saw the same bars; if not, what differs, and which symbols and days against the first group's."""
    facts = {"fingerprint": "Fingerprint", "source": "Source", "first": "First session", "last": "Last session"}
    rows = _differing(
        {words: [(g, dig(g.runs[0].manifest, "data", key)) for g in groups] for key, words in facts.items()}
    )
    first, lines = groups[0].runs[0], {}
    for group in groups[1:]:
        run = group.runs[0]
        if dig(run.manifest, "data", "fingerprint") == dig(first.manifest, "data", "fingerprint"):
            continue
        ours, theirs = read_digests(first.path), read_digests(run.path)
        if ours is None or theirs is None:
            lines[group.label] = ["which symbols and days cannot be said: a run was recorded without bars.npz"]
        else:
            lines[group.label] = data_delta(ours, theirs).lines() or ["the same bars in another order of symbols"]
    return {"same": not lines, "rows": rows, "bars": lines}


def code_rows(groups: Sequence[Group]) -> dict[str, Any]:
    """Whether all ran the same code; if not, commits, digests, and the files of each one's uncommitted changes."""
    codes = [(group, group.runs[0].manifest.get("code") or {}) for group in groups]
    digests = [code.get("digest") for _, code in codes]
    same = len(set(digests)) == 1 and digests[0] is not None
    if same:
        return {"same": True, "rows": []}
    rows = _differing(
        {
            "Digest of the sources": [(group, code.get("digest")) for group, code in codes],
            "Commit": [(group, code.get("commit")) for group, code in codes],
            "Uncommitted changes": [(group, _changes(group.runs[0], code)) for group, code in codes],
        }
    )
    return {"same": not rows and digests[0] is not None, "rows": rows}


def environment_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Versions, threads and properties of the machine that differ: field, values by group."""
    facts = {
        id(run): flatten({key: run.manifest.get(key) for key in ENVIRONMENT}) for group in groups for run in group.runs
    }
    names = dict.fromkeys(name for values in facts.values() for name in values)
    rows = []
    for name in names:
        if len({canonical(values.get(name)) for values in facts.values()}) > 1:
            values = {group.label: _seen(facts[id(run)].get(name, UNKNOWN) for run in group.runs) for group in groups}
            rows.append({"field": name, "values": values})
    return rows


def group_title(group: Group, groups: Sequence[Group], rows: list[dict[str, Any]]) -> str:
    """What to call a group: the name of its runs where no other group has it, else the overrides that set it apart.

    rows: of `config_rows`, which say exactly what differs.
    """
    name = group.runs[0].manifest.get("name")
    own = [row for row in rows if row["counts"] and not row["chosen_by"] and row["field"] != "seed"]
    if not own or [other.runs[0].manifest.get("name") for other in groups].count(name) == 1:
        return str(name or group.label)
    parts = [f"{row['field']}={shown_value(row['values'][group.label])}" for row in own]
    return ", ".join(parts[:2]) + (f" and {len(parts) - 2} more" if len(parts) > 2 else "")


def shown_value(value: Any) -> str:
    """A value as one would write it on the command line."""
    if isinstance(value, str):
        return value
    return json.dumps(plain(value), separators=(",", ":")).replace('"', "")


def _differing(facts: dict[str, list[tuple[Group, Any]]]) -> list[dict[str, Any]]:
    return [
        {"field": words, "values": {group.label: UNKNOWN if value is None else value for group, value in values}}
        for words, values in facts.items()
        if len({canonical(value) for _, value in values}) > 1
    ]


def _changes(run: RunFolder, code: dict[str, Any]) -> str | None:
    """The files that code.patch changes, none, or why there is no patch."""
    if code.get("dirty") is None:
        return None
    if not code["dirty"]:
        return "none"
    path = run.path / "code.patch"
    if not path.is_file():
        return str(code.get("patch") or "yes, and not kept")
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    return ", ".join(
        line.removeprefix("diff --git ").split(" b/")[-1] for line in lines if line.startswith("diff --git ")
    )


def _name_is_derived(flat: dict[str, Any]) -> bool:
    return flat.get("name") == "-".join(str(flat.get(f"{group}.name")) for group in ("model", "stocks", "objective"))


def _seen(values: Any) -> Any:
    """The one value of a group, or the list of different ones in the order of their runs."""
    distinct = {canonical(value): value for value in values}
    return next(iter(distinct.values())) if len(distinct) == 1 else {"each": list(distinct.values())}
