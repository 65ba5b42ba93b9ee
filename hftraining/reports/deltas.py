"""What differs between runs (config, bars, code, environment), and which of them differ by their seed alone."""

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from statistics import fmean, stdev
from typing import Any

from hftraining.core.metrics import Unit
from hftraining.core.untrusted import MB, is_there, read_bytes, shown
from hftraining.core.values import canonical, flatten, plain
from hftraining.reports.format import number
from hftraining.runs.bar_digests import data_delta, read_digests
from hftraining.runs.folder import RunFolder
from hftraining.runs.identity import cannot_change_a_number
from hftraining.runs.quantities import Number
from hftraining.runs.result import RunResult

NOT_RECORDED = "not recorded"
PATCH_MOST, NAMES_MOST = 4 * MB, 2000  # bytes of code.patch, and characters of the names of its files
ENVIRONMENT = ("threads", "python", "platform", "cpu_count", "cpu", "numerics", "versions")
DATA = {
    "data.fingerprint": "Fingerprint",
    "data.source": "Source",
    "data.first": "First session",
    "data.last": "Last session",
}
LOSS_FIELDS = (  # each of them changes what a forecast loss measures
    "objective.horizons",
    "objective.quantiles",
    "objective.label",
    "objective.relative",
    "objective.loss",
    "profit_tracker.lag",
)


@dataclass(frozen=True)
class Run:
    """One run of a comparison. label: A1 is the first run of group A."""

    label: str
    group: str
    files: RunFolder

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml by dotted names."""
        return flatten(self.files.config)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """run.json by dotted names."""
        return flatten(self.files.manifest)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The numbers of result.json by dotted path; empty for an unfinished run."""
        values = flatten(self.result.as_json()) if self.result else {}
        return {path: value for path, value in values.items() if isinstance(value, (int, float))}

    @property
    def result(self) -> RunResult | None:
        """result.json; None for an unfinished run."""
        return self.files.result

    @property
    def seed(self) -> Any:
        """The seed of run.json."""
        return self.facts.get("seed")


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a metric over n seeds. sd: None for fewer than two."""

    mean: Number
    sd: Number
    n: int

    def text(self, unit: Unit = Unit.RATIO) -> str:
        """0.84 +- 0.12."""
        text = number(self.mean, unit)
        return f"{text} +- {number(self.sd, unit).lstrip('+')}" if self.sd else text


@dataclass
class Group:
    """Runs with the same config, data and code: several seeds, or repetitions. title: its name for people."""

    label: str
    runs: list[Run]
    title: str = ""

    @property
    def replicates(self) -> list[Run]:
        """One finished run for each seed, the last one: a repetition is no further evidence."""
        return list({run.seed: run for run in self.runs if run.result}.values())

    @property
    def drawn(self) -> list[RunFolder]:
        """The runs in the charts: the replicates, or all runs where none is finished."""
        return [run.files for run in self.replicates or self.runs]

    @property
    def cpu_seconds(self) -> Spread:
        """What the training and the probes of a run took; unknown where an older version logged the steps."""
        last = [run.files.history[-1] for run in self.replicates if run.files.history]
        return _spread([row["cpu_seconds"] for row in last if "cpu_seconds" in row])

    @property
    def seeds(self) -> list[Any]:
        """The seeds of the replicates."""
        return [run.seed for run in self.replicates]

    @property
    def name(self) -> str:
        """Label and title, such as "B: fast"."""
        return f"{self.label}: {self.title}"

    def values(self, path: str) -> list[float]:
        """A metric of each replicate that has it. path: in result.json."""
        return [run.numbers[path] for run in self.replicates if path in run.numbers]

    def spread(self, path: str) -> Spread:
        """Mean and standard deviation of a metric over the replicates."""
        return _spread(self.values(path))


def _spread(values: list[float]) -> Spread:
    return Spread(fmean(values) if values else None, stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Each:
    """The different values in one group, in the order of its runs."""

    each: list[Any]


@dataclass(frozen=True)
class Row:
    """A field that differs. values: by the label of the group; an Each where it varies within the group.

    counts: whether a field of the config can change a number. chosen_by: the config group whose choice changed it.
    """

    field: str
    values: dict[str, Any]
    counts: bool = True
    chosen_by: str | None = None


@dataclass(frozen=True)
class Delta:
    """Whether all runs had the same bars, or the same code, and what differs."""

    same: bool
    rows: list[Row]


def group_by_seed(runs: Sequence[RunFolder]) -> list[Group]:
    """Groups of runs with the same bars, code and config but for the seed, in the order of their first runs."""
    found: dict[str, list[RunFolder]] = {}
    for run in runs:
        counted = {n: v for n, v in flatten(run.config).items() if n != "seed" and not cannot_change_a_number(n)}
        code, data = (run.manifest.get(key) or {} for key in ("code", "data"))
        identity = [canonical(counted), data.get("fingerprint"), code.get("digest") or code]
        found.setdefault(json.dumps(identity, sort_keys=True), []).append(run)
    groups = []
    for label, members in zip(map(group_label, range(len(found))), found.values(), strict=True):
        groups.append(Group(label, [Run(f"{label}{i}", label, run) for i, run in enumerate(members, start=1)]))
    return groups


def group_label(index: int) -> str:
    """A, B, ... Z, G27, G28, ..."""
    return string.ascii_uppercase[index] if index < 26 else f"G{index + 1}"


def config_rows(groups: Sequence[Group]) -> list[Row]:
    """The fields of the config that differ.

    A choice of a config group, model=tiny against model=small, has its own row above the fields that it changed. Within
    a group of runs only the seed and fields that cannot change a number vary.
    """
    configs = [run.config for group in groups for run in group.runs]
    names = dict.fromkeys(name for config in configs for name in config)
    differing = [name for name in names if len({canonical(config.get(name)) for config in configs}) > 1]
    if "name" in differing and all(config.get("name") == derived_name(config) for config in configs):
        differing.remove("name")
    heads = {name: name.rpartition(".")[0] for name in differing}
    choices = {
        head
        for name, head in heads.items()
        if head and name == f"{head}.name" and sum(other.startswith(f"{head}.") for other in differing) > 1
    }
    rows = []
    for name, head in heads.items():
        choice = head in choices and name == f"{head}.name"
        chosen = head in choices and not choice and _follows(name, f"{head}.name", configs)
        rows.append(
            Row(
                field=head if choice else name,
                values=_by_group(groups, [config.get(name) for config in configs]),
                counts=choice or not cannot_change_a_number(name),
                chosen_by=head if chosen else None,
            )
        )
    return rows


def losses_differ_in(rows: Sequence[Row]) -> list[str]:
    """The fields among these rows that make forecast losses incomparable."""
    found = [row.field for row in rows if row.field in LOSS_FIELDS]
    # Without a forecast loss, eval/loss is the profit loss.
    return found + [row.field for row in rows if row.field == "objective.forecast_weight" and 0 in row.values.values()]


def changed_bars(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The symbols and days whose bars differ from the first group's, by the label of the group; one line if unknown.

    Groups with the bars of the first one are left out.
    """
    first, lines = groups[0].runs[0], dict[str, list[str]]()
    for group in groups[1:]:
        run = group.runs[0]
        if run.facts.get("data.fingerprint") == first.facts.get("data.fingerprint"):
            continue
        ours, theirs = read_digests(first.files.path), read_digests(run.files.path)
        if ours is None or theirs is None:
            lines[group.label] = ["a run was recorded without bars.npz, so the symbols and days are not known"]
        else:
            lines[group.label] = data_delta(ours, theirs).lines() or ["the same bars in another order of symbols"]
    return lines


def data_delta_of(groups: Sequence[Group]) -> Delta:
    """Whether all runs saw the same bars, and in which properties these differ."""
    facts = [run.facts for group in groups for run in group.runs]
    rows = _rows(groups, {words: [of.get(key) for of in facts] for key, words in DATA.items()})
    return Delta(len({of.get("data.fingerprint") for of in facts}) == 1, rows)


def code_delta_of(groups: Sequence[Group]) -> Delta:
    """Whether all runs ran the same code; if not, digests, commits and files with uncommitted changes."""
    runs = [run for group in groups for run in group.runs]
    digests = [run.facts.get("code.digest") for run in runs]
    if len(set(digests)) == 1 and digests[0] is not None:
        return Delta(True, [])
    commits, changes = [run.facts.get("code.commit") for run in runs], [_changes(run) for run in runs]
    rows = {"Digest of the sources": digests, "Commit": commits, "Uncommitted changes": changes}
    return Delta(False, _rows(groups, rows))


def environment_rows(groups: Sequence[Group]) -> list[Row]:
    """Versions, threads and properties of the machine that differ."""
    facts = [run.facts for group in groups for run in group.runs]
    names = dict.fromkeys(name for key in ENVIRONMENT for of in facts for name in of if name.split(".")[0] == key)
    return _rows(groups, {name: [of.get(name) for of in facts] for name in names})


def group_title(group: Group, groups: Sequence[Group], rows: Sequence[Row]) -> str:
    """The name of a group's runs where it is unique, else the overrides that set the group apart.

    rows: from `config_rows`.
    """
    names = [other.runs[0].facts.get("name") for other in groups]
    name = group.runs[0].facts.get("name")
    parts = sets_apart(group, rows)
    if not parts or names.count(name) == 1:
        return str(name or group.label)
    return ", ".join(parts[:2]) + (f" and {len(parts) - 2} more" if len(parts) > 2 else "")


def sets_apart(group: Group, rows: Sequence[Row]) -> list[str]:
    """The overrides that set a group apart: fields that can change a number, and choices of a config group."""
    own = [row for row in rows if row.counts and not row.chosen_by and row.field != "seed"]
    return [f"{row.field}={shown_value(row.values[group.label])}" for row in own]


def shown_value(value: Any) -> str:
    """A value as the command line takes it; the values of an Each with commas between them."""
    if isinstance(value, Each):
        return ", ".join(map(shown_value, value.each))
    return value if isinstance(value, str) else json.dumps(plain(value), separators=(",", ":")).replace('"', "")


def _follows(name: str, other: str, configs: Sequence[dict[str, Any]]) -> bool:
    """Whether a field has one value for each value of another field."""
    pairs = {(canonical(config.get(other)), canonical(config.get(name))) for config in configs}
    return len(pairs) == len({of for of, _ in pairs})


def _by_group(groups: Sequence[Group], values: Sequence[Any]) -> dict[str, Any]:
    """The one value of each group, or an Each of its different ones. values: of all runs, group by group."""
    rest, found = iter(values), dict[str, Any]()
    for group in groups:
        distinct = list({canonical(value): value for value in islice(rest, len(group.runs))}.values())
        found[group.label] = distinct[0] if len(distinct) == 1 else Each(distinct)
    return found


def _rows(groups: Sequence[Group], table: Mapping[str, Sequence[Any]]) -> list[Row]:
    """The fields that differ. table: the values of all runs, group by group; None where they are not recorded."""
    return [
        Row(field, _by_group(groups, [NOT_RECORDED if value is None else value for value in values]))
        for field, values in table.items()
        if len(set(map(canonical, values))) > 1
    ]


def _changes(run: Run) -> str | None:
    """The files that code.patch changes, "none", or why there is no patch; None where it is not recorded."""
    dirty = run.facts.get("code.dirty")
    if not dirty:
        return None if dirty is None else "none"
    path = run.files.path / "code.patch"
    if not is_there(path):
        return str(run.facts.get("code.patch") or "yes, and not kept")
    lines = read_bytes(path, PATCH_MOST).decode("utf-8", "replace").splitlines()
    return shown(", ".join(line.split(" b/")[-1] for line in lines if line.startswith("diff --git ")), NAMES_MOST)


def derived_name(config: Mapping[str, Any]) -> str:
    """The name that a run has by default. config: by dotted names."""
    return "-".join(str(config.get(f"{group}.name")) for group in ("model", "stocks", "objective"))
