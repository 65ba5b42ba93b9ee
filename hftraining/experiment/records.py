"""A record of an experiment: what was asked, what n seeds showed beside the baseline, and how to do it again."""

import math
import re
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import UserError
from hftraining.core.files import write_json_atomically, write_text_atomically
from hftraining.core.metrics import Unit
from hftraining.core.values import plain
from hftraining.experiment.compose import override
from hftraining.reports.compare import HELD, LOSS, SHARPE, Comparison, compare_runs
from hftraining.reports.compare_charts import Curve, growth_by_window, mean_curve
from hftraining.reports.compare_words import between, headline, sentences
from hftraining.reports.deltas import Group, Run, shown_value
from hftraining.reports.format import number, plural
from hftraining.reports.png import BENCHMARK, COLORS, Drawn, Panel, line_chart
from hftraining.runs.folder import find_runs, read_run
from hftraining.runs.result import PERIODS

NAME = re.compile(r"[A-Z][A-Za-z0-9]{1,59}\Z")
TABLE = (  # path in the result, words, unit
    (LOSS, "validation loss", Unit.LOSS),
    (SHARPE["valid"], "validation Sharpe", Unit.RATIO),
    (HELD["valid"], "of buy and hold", Unit.RATIO),
    (SHARPE["test"], "test Sharpe", Unit.RATIO),
    (HELD["test"], "of buy and hold", Unit.RATIO),
)
RECORDS = "| date | record | what it showed |"
FRESH_README = f"""# Records

`python -m hftraining record NAME RUN [RUN ...]` writes a record and adds it here.

{RECORDS}
|---|---|---|
"""


class RecordNameError(UserError):
    """A record cannot be made: what, where, what to do, in one line."""


def write_record(name: str, places: Sequence[str | Path], question: str, experiments: Path, day: date) -> Path:
    """Write experiments/DAY_NAME/ with README.md, config_diff.yaml, result.json and curve.png; returns the folder.

    The first group of runs is the baseline of the others. A row is added to the table of experiments/README.md.
    Raises RecordNameError for a name that is none or taken, and for runs of which none is finished.
    """
    if not NAME.match(name):
        raise RecordNameError(
            f"NAME={name!r} must be a word such as RelativeLabels: a capital, then letters and digits"
        )
    folder = experiments / f"{day.isoformat()}_{name}"
    if folder.exists():
        raise RecordNameError(f"{folder} exists: a record is never overwritten, choose another name")
    comparison = compare_runs([read_run(run) for run in find_runs(places)])
    if not any(group.replicates for group in comparison.groups):
        raise RecordNameError(f"{', '.join(map(str, places))}: none of these runs is finished")
    outcome = verdict(comparison)
    commands = {group.label: repeat_command(group) for group in comparison.groups}
    head = {"name": name, "date": day.isoformat(), "question": question, "verdict": outcome, "commands": commands}
    temporary = experiments / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    try:
        write_text_atomically(temporary / "README.md", _readme(name, question, comparison, outcome, commands))
        write_text_atomically(temporary / "config_diff.yaml", _config_diffs(comparison))
        write_json_atomically(temporary / "result.json", head | comparison.as_json())
        (temporary / "curve.png").write_bytes(curve(comparison))
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _list(experiments / "README.md", day, folder.name, _words(name), outcome[0])
    return folder


def verdict(comparison: Comparison) -> list[str]:
    """By fixed rules: first how the groups stand to each other, then each beside luck and buy and hold."""
    lines = [f"{headline(comparison)}."]
    if len(comparison.groups) > 1:
        lines += sentences(comparison)
    for group in comparison.groups:
        results = [run.result for run in group.replicates if run.result]
        if not results:
            lines.append(f"{group.title}: no run is finished.")
            continue
        windows = [result.periods.get("valid") for result in results]
        said = [
            (window and window.verdict) or result.verdict or "" for window, result in zip(windows, results, strict=True)
        ]
        chance, market = (sum(text.startswith(words) for text in said) for words in ("beats", "beats buy and hold"))
        lines.append(
            f"{group.title}: validation Sharpe ratio {group.spread(SHARPE['valid']).text()} over "
            f"{plural(len(said), 'seed')}, buy and hold {number(group.spread(HELD['valid']).mean, Unit.RATIO)}; "
            f"{chance} of {len(said)} beat chance, {market} of {len(said)} beat buy and hold on the validation days."
        )
    return lines


def repeat_command(group: Group) -> str:
    """`python train.py ...` with the group's own values and seeds; exact whatever the group files say by then."""
    run = group.runs[0]
    seeds = sorted({int(run.seed) for run in group.runs if run.seed is not None})
    derived = "-".join(str(run.config.get(f"{part}.name")) for part in ("model", "stocks", "objective"))
    skipped = {"seed", "output_dir", "resume"} | ({"name"} if run.config.get("name") == derived else set())
    overrides = [override(field, value) for field, value in run.files.config_diff.items() if field not in skipped]
    words = ["python", "train.py", *(["-m"] if len(seeds) > 1 else []), *overrides]
    return " ".join(shlex.quote(word) for word in [*words, f"seed={','.join(map(str, seeds))}"])


def curve(comparison: Comparison) -> bytes:
    """curve.png: what one unit of money became on validation and test days; a group's mean, its seeds thin."""
    panels = []
    for window, held, curves in growth_by_window(comparison.groups):
        days = sorted({day for _, known in curves for one in known for day in one})
        thin, strong = list[Drawn](), [Drawn(_on(days, held), BENCHMARK, "buy and hold", 1.2, dashed=True)]
        for color, (group, known) in zip(COLORS, curves, strict=False):
            if len(known) > 1:
                thin += [Drawn(_on(days, one), color, width=0.6, opacity=0.4) for one in known]
            if known:
                strong.append(Drawn(_on(days, mean_curve(known)), color, group.title[:36]))
        panels.append(Panel(f"{PERIODS[window]} days", [*thin, *strong], (days[0], days[-1])))
    return line_chart("What one unit of money became, after all costs", panels)


def _on(days: Sequence[str], curve: Curve) -> list[float]:
    return [curve.get(day, math.nan) for day in days]


def _readme(name: str, question: str, comparison: Comparison, outcome: Sequence[str], commands: dict[str, str]) -> str:
    rows = [
        [
            f"{group.label}: {_cell(group.title)}",
            *(group.spread(path).text(unit) for path, _, unit in TABLE),
            ", ".join(map(str, group.seeds)) or "none finished",
        ]
        for group in comparison.groups
    ]
    parts = [f"# {_words(name)}", *([question] if question else []), outcome[0]]
    parts.append(_table(["", *(words for _, words, _ in TABLE), "seeds"], rows))
    parts.append("Mean +- standard deviation over seeds. The first row is the baseline of the others.")
    if comparison.differences:
        parts += _differences(comparison)
    parts += [*outcome[1:], "![what one unit of money became](curve.png)"]
    if len(comparison.groups) > 1:
        fields = [
            [f"`{row.field}`", *(f"`{_cell(shown_value(row.values[label]))}`" for label in comparison.labels)]
            for row in comparison.config
        ]
        parts += ["## What differed", _table(["field", *comparison.labels], fields)]
    again = "\n".join(f"    {command}" for command in commands.values())
    return "\n\n".join([*parts, "## Again", again, _provenance(comparison.runs)]) + "\n"


def _differences(comparison: Comparison) -> list[str]:
    """The Sharpe ratios beside the baseline's, on validation days: by days and by seeds."""
    rows = []
    for difference, window, days, seeds in comparison.rows():
        if window == "valid":
            texts = (f"{number(found.value, Unit.RATIO, signed=True)} {between(found)}" for found in (days, seeds))
            by_days, by_seeds = texts
            name = f"{difference.group} less {difference.against}"
            rows.append([name, by_days, by_seeds if seeds.several else "one seed", seeds.needed])
    return [
        _table(["validation Sharpe ratio", "by days, 95 %", "by seeds, 95 %", "seeds needed"], rows),
        "By days: paired bootstrap of the daily returns (Ledoit and Wolf 2008). By seeds: Welch's interval. Seeds "
        "needed on each side to tell a difference of this size from none (two-sample t test, 80 % power, 5 % level).",
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, *rows]
    head, *body = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|---" * len(heads) + "|", *body])


def _provenance(runs: Sequence[Run]) -> str:
    """Code, data and machine, each value once."""

    def code(facts: dict[str, Any]) -> str:
        dirty = ", with uncommitted changes" if facts.get("code.dirty") else ""
        return f"commit {str(facts.get('code.commit'))[:12]}{dirty}, sources {facts.get('code.digest')}"

    def data(facts: dict[str, Any]) -> str:
        source, first, last, mark = (facts.get(f"data.{key}") for key in ("source", "first", "last", "fingerprint"))
        return f"{source}, {first} to {last}, fingerprint {mark}"

    def machine(facts: dict[str, Any]) -> str:
        processor = facts.get("cpu.model") or facts.get("platform")
        return f"{processor}, {facts.get('threads')} threads, torch {facts.get('versions.torch')}"

    found: dict[str, Callable[[dict[str, Any]], str]] = {"Code": code, "Data": data, "Machine": machine}
    return "\n".join(
        f"- {label}: {'; '.join(dict.fromkeys(words(run.facts) for run in runs))}" for label, words in found.items()
    )


def _config_diffs(comparison: Comparison) -> str:
    """Of each group, what differs from the defaults; the seed as the list of all."""
    diffs = {}
    for group in comparison.groups:
        config_diff = group.runs[0].files.config_diff
        fields = {name: value for name, value in config_diff.items() if name not in ("seed", "output_dir", "resume")}
        seeds = list(dict.fromkeys(run.seed for run in group.runs))
        diffs[group.label] = {"title": group.title, "seeds": seeds, "config_diff": fields}
    return yaml.safe_dump(plain(diffs), sort_keys=False, allow_unicode=True)


def _list(path: Path, day: date, folder: str, words: str, outcome: str) -> None:
    """Add a row to the table of records, below the rows that are there; others' text stays as it is."""
    text = path.read_text(encoding="utf-8") if path.exists() else FRESH_README
    lines = text.splitlines()
    if RECORDS not in lines:
        lines += ["", RECORDS, "|---|---|---|"]
    end = lines.index(RECORDS)
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    lines.insert(end, f"| {day.isoformat()} | [{words}]({folder}/README.md) | {_cell(outcome)} |")
    write_text_atomically(path, "\n".join(lines) + "\n")


def _words(name: str) -> str:
    """RelativeLabels as "Relative labels"."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return text[0] + text[1:].lower()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
