"""The record of an experiment: its question, what n seeds showed beside the baseline, and how to repeat it."""

import math
import re
import secrets
import shlex
import shutil
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from hftraining.core.errors import UserError
from hftraining.core.files import write_json_atomically, write_text_atomically
from hftraining.core.metrics import Unit
from hftraining.core.untrusted import yaml_text
from hftraining.core.values import plain
from hftraining.experiment.compose import override
from hftraining.reports.compare import HELD, LOSS, SHARPE, Comparison, compare_runs
from hftraining.reports.compare_words import headline, legend, money_sentences, sentences
from hftraining.reports.curves import Curve, growth_by_period, mean_of
from hftraining.reports.deltas import Group, Run, derived_name, shown_value
from hftraining.reports.format import estimate, number, plural
from hftraining.reports.png import BENCHMARK, COLORS, Drawn, Panel, line_chart
from hftraining.runs.folder import find_runs, read_run
from hftraining.runs.result import PERIODS

NAME = re.compile(r"[A-Z][A-Za-z0-9]{1,59}\Z")
NOT_REPEATED = ("seed", "output_dir", "resume")
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


def write_record(name: str, places: Sequence[str | Path], question: str, experiments: Path, day: date) -> Path:
    """Write experiments/DAY_NAME/ with README.md, config_diff.yaml, result.json and curve.png; returns the folder.

    The first group of runs is the baseline of the others. The table of experiments/README.md gets a row. Raises
    UserError for an invalid or used name, and where no run is finished.
    """
    if not NAME.match(name):
        raise UserError(f"NAME={name!r} must be a word such as RelativeLabels: a capital, then letters and digits")
    folder = experiments / f"{day.isoformat()}_{name}"
    if folder.exists():
        raise UserError(f"{folder} exists: a record is never overwritten, choose another name")
    comparison = compare_runs([read_run(run) for run in find_runs(places)])
    if not any(group.replicates for group in comparison.groups):
        raise UserError(f"{', '.join(map(str, places))}: none of these runs is finished")
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
    named = [outcome[0], *filter(None, [legend(comparison)])]  # the letters mean nothing without their names
    _list(experiments / "README.md", day, folder.name, _words(name), " ".join(named))
    return folder


def verdict(comparison: Comparison) -> list[str]:
    """The outcome by fixed rules: first the groups compared, then each group beside luck and buy and hold."""
    lines = [f"{headline(comparison)}.", *filter(None, [legend(comparison)]), *money_sentences(comparison)]
    if len(comparison.groups) > 1:
        lines += sentences(comparison)
    for group in comparison.groups:
        called = group.label if len(comparison.groups) > 1 else group.title
        results = [run.result for run in group.replicates if run.result]
        if not results:
            lines.append(f"{called}: no run is finished.")
            continue
        said = [("valid" in result.periods and result.valid.verdict) or result.verdict or "" for result in results]
        chance, market = (sum(text.startswith(words) for text in said) for words in ("beats", "beats buy and hold"))
        lines.append(
            f"{called}: validation Sharpe ratio {group.spread(SHARPE['valid']).text()} over "
            f"{plural(len(said), 'seed')}, buy and hold {number(group.spread(HELD['valid']).mean, Unit.RATIO)}; "
            f"{chance} of {len(said)} beat chance, {market} of {len(said)} beat buy and hold on the validation days."
        )
    return lines


def repeat_command(group: Group) -> str:
    """`python train.py ...` with the group's values and seeds; it stays exact when a config group's file changes."""
    run = group.runs[0]
    seeds = sorted({int(run.seed) for run in group.runs if run.seed is not None})
    skipped = {*NOT_REPEATED, *(["name"] if run.config.get("name") == derived_name(run.config) else [])}
    # base.* and candidate tell what a fine-tune started from; init_from, which is there too, repeats it.
    fields = {f: v for f, v in run.files.config_diff.items() if not f.startswith("base.") and f not in skipped}
    overrides = [override(field, value) for field, value in fields.items()]
    words = ["python", "train.py", *(["-m"] if len(seeds) > 1 else []), *overrides]
    return " ".join(shlex.quote(word) for word in [*words, f"seed={','.join(map(str, seeds))}"])


def curve(comparison: Comparison) -> bytes:
    """curve.png: what one unit of money became by period; means of groups are thick, their seeds thin."""
    panels = []
    for period, held, curves in growth_by_period(comparison.groups):
        days = sorted({day for _, known in curves for one in known for day in one})
        thin, strong = list[Drawn](), [Drawn(_on(days, held), BENCHMARK, "buy and hold", 1.2, dashed=True)]
        for color, (group, known) in zip(COLORS, curves, strict=False):
            if len(known) > 1:
                thin += [Drawn(_on(days, one), color, width=0.6, opacity=0.4) for one in known]
            if known:
                strong.append(Drawn(_on(days, mean_of(known)), color, group.title[:36]))
        panels.append(Panel(f"{PERIODS[period]} days", [*thin, *strong], (days[0], days[-1])))
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
    """The validation Sharpe ratios less the baseline's: by days and by seeds."""
    rows = []
    for difference, period, days, seeds in comparison.rows():
        if period == "valid":
            by_days, by_seeds = (estimate(found, Unit.RATIO) for found in (days, seeds))
            name = f"{difference.group} less {difference.against}"
            rows.append([name, by_days, by_seeds if seeds.several else "one seed", seeds.needed])
    return [
        _table(["validation Sharpe ratio", "by days, 95 %", "by seeds, 95 %", "seeds needed"], rows),
        "By days: paired bootstrap of the daily returns (Ledoit and Wolf 2008). By seeds: Welch's interval. Seeds "
        "needed on each side to tell a difference of this size from none (two-sample t test, 80 % power, 5 % level).",
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _provenance(runs: Sequence[Run]) -> str:
    """Code, data and machine, each value once."""
    lines: dict[str, list[str]] = {"Code": [], "Data": [], "Machine": []}
    for facts in (run.facts for run in runs):
        dirty = ", with uncommitted changes" if facts.get("code.dirty") else ""
        lines["Code"].append(f"commit {str(facts.get('code.commit'))[:12]}{dirty}, sources {facts.get('code.digest')}")
        source, first, last, mark = (facts.get(f"data.{key}") for key in ("source", "first", "last", "fingerprint"))
        lines["Data"].append(f"{source}, {first} to {last}, fingerprint {mark}")
        machine = facts.get("cpu.model") or facts.get("platform")
        lines["Machine"].append(f"{machine}, {facts.get('threads')} threads, torch {facts.get('versions.torch')}")
    return "\n".join(f"- {label}: {'; '.join(dict.fromkeys(texts))}" for label, texts in lines.items())


def _config_diffs(comparison: Comparison) -> str:
    """What differs from the defaults in each group; the seeds as a list."""
    diffs = {}
    for group in comparison.groups:
        config_diff = group.runs[0].files.config_diff
        fields = {name: value for name, value in config_diff.items() if name not in NOT_REPEATED}
        seeds = list(dict.fromkeys(run.seed for run in group.runs))
        diffs[group.label] = {"title": group.title, "seeds": seeds, "config_diff": fields}
    return yaml_text(plain(diffs))


def _list(path: Path, day: date, folder: str, words: str, outcome: str) -> None:
    """Add a row at the end of the table of records; all other text stays."""
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
    """The name RelativeLabels as "Relative labels"."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return text[0] + text[1:].lower()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
