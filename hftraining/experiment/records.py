"""A record of an experiment: what was asked, what n seeds showed beside the baseline, and how to do it again."""

import math
import re
import secrets
import shlex
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import UserError
from hftraining.core.files import write_json_atomically, write_text_atomically
from hftraining.core.values import canonical, plain
from hftraining.reports.charts import WINDOWS
from hftraining.reports.compare import Comparison, compare_runs
from hftraining.reports.compare_charts import growth
from hftraining.reports.compare_text import shown
from hftraining.reports.compare_words import between, headline, sentences, signed, spread_text
from hftraining.reports.deltas import Group
from hftraining.reports.png import BENCHMARK, COLORS, Curve, Panel, line_chart
from hftraining.runs.folder import RunFolder, find_runs, read_run
from hftraining.runs.record import dig

NAME = re.compile(r"[A-Z][A-Za-z0-9]{1,59}\Z")
TABLE = (  # path in the result, words, digits
    ("eval.loss", "validation loss", 4),
    ("valid.profit.sharpe_ratio", "validation Sharpe", 2),
    ("valid.baselines.buy_and_hold.sharpe_ratio", "of buy and hold", 2),
    ("test.profit.sharpe_ratio", "test Sharpe", 2),
    ("test.baselines.buy_and_hold.sharpe_ratio", "of buy and hold", 2),
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
    result = {
        "name": name,
        "date": day.isoformat(),
        "question": question,
        "verdict": outcome,
        "commands": commands,
        **comparison.found,
    }
    text = _readme(name, question, comparison, outcome, commands)
    temporary = experiments / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    try:
        write_text_atomically(temporary / "README.md", text)
        write_text_atomically(temporary / "config_diff.yaml", _config_diffs(comparison))
        write_json_atomically(temporary / "result.json", result)
        (temporary / "curve.png").write_bytes(curve(comparison))
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _list(experiments / "README.md", day, folder.name, _words(name), outcome[0])
    return folder


def verdict(comparison: Comparison) -> list[str]:
    """By fixed rules: first how the groups stand to each other, then each beside luck and buy and hold."""
    lines = [f"{headline(comparison.found)}."]
    if len(comparison.groups) > 1:
        lines += sentences(comparison.found)
    for group, found in zip(comparison.groups, comparison.found["groups"], strict=True):
        runs = group.replicates
        if not runs:
            lines.append(f"{found['title']}: no run is finished.")
            continue
        said = [str(dig(run.result, "valid", "verdict") or dig(run.result, "verdict") or "") for run in runs]
        held = spread_text(found["metrics"]["valid.baselines.buy_and_hold.sharpe_ratio"] | {"sd": None})
        sharpe = spread_text(found["metrics"]["valid.profit.sharpe_ratio"])
        chance = sum(text.startswith("beats") for text in said)
        market = sum(text.startswith("beats buy and hold") for text in said)
        lines.append(
            f"{found['title']}: validation Sharpe ratio {sharpe} over {_seeds(len(runs))}, buy and hold {held}; "
            f"{chance} of {len(runs)} beat chance, "
            f"{market} of {len(runs)} beat buy and hold on the validation days."
        )
    return lines


def repeat_command(group: Group) -> str:
    """`python train.py ...` with the group's own values and seeds; exact whatever the group files say by then."""
    run = group.runs[0]
    seeds = sorted({int(run.manifest["seed"]) for run in group.runs if run.manifest.get("seed") is not None})
    derived = "-".join(str(dig(run.config, part, "name")) for part in ("model", "stocks", "objective"))
    skipped = {"seed", "output_dir", "resume"} | ({"name"} if run.config.get("name") == derived else set())
    overrides = [override(field, value) for field, value in run.config_diff.items() if field not in skipped]
    words = ["python", "train.py", *(["-m"] if len(seeds) > 1 else []), *overrides]
    return " ".join(shlex.quote(word) for word in [*words, f"seed={','.join(map(str, seeds))}"])


def override(field: str, value: Any) -> str:
    """A field and its value in Hydra's override grammar."""
    return f"{field}={_value(value)}"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    plain_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/.][\w/.-]*", value)
    if isinstance(value, str) and (not plain_word or value.lower() in ("null", "true", "false", "nan", "inf")):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def curve(comparison: Comparison) -> bytes:
    """curve.png: what one unit of money became on validation and test days; a group's mean, its seeds thin."""
    panels = []
    titles = {found["label"]: found["title"] for found in comparison.found["groups"]}
    for window, words in WINDOWS.items():
        known = {
            group.label: [growth(run, window, "equity") for run in group.replicates] for group in comparison.groups
        }
        known = {label: [part for part in parts if part] for label, parts in known.items()}
        days = sorted({day for parts in known.values() for part in parts for day in part})
        if not days:
            continue
        held = next(growth(run, window, "buy_and_hold") for group in comparison.groups for run in group.replicates)
        thin, strong = list[Curve](), [Curve(_on(days, held), BENCHMARK, "buy and hold", 1.6)]
        for color, (label, parts) in zip(COLORS, known.items(), strict=False):
            if not parts:
                continue
            if len(parts) > 1:
                thin += [Curve(_on(days, part), _pale(color), width=0.8) for part in parts]
            mean = {day: fmean(part[day] for part in parts) for day in parts[0] if all(day in part for part in parts)}
            strong.append(Curve(_on(days, mean), color, titles[label][:36]))
        ticks = [(0.0, days[0]), (1.0, days[-1])]
        panels.append(Panel(f"{words} days", [*thin, *strong], ticks))
    return line_chart("What one unit of money became, after all costs", panels)


def _on(days: Sequence[str], values: dict[str, float]) -> list[float]:
    return [values.get(day, math.nan) for day in days]


def _pale(color: str) -> str:
    """The colour, two thirds of the way to the paper's white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (252 - part) * 0.65):02x}" for part in parts)


def _readme(name: str, question: str, comparison: Comparison, outcome: Sequence[str], commands: dict[str, str]) -> str:
    found, groups = comparison.found, comparison.groups
    labels = [group["label"] for group in found["groups"]]
    head = "| | " + " | ".join(words for _, words, _ in TABLE) + " | seeds |"
    rows = [
        f"| {group['label']}: {_cell(group['title'])} | "
        + " | ".join(spread_text(group["metrics"][metric], digits) for metric, _, digits in TABLE)
        + f" | {', '.join(map(str, group['seeds'])) or 'none finished'} |"
        for group in found["groups"]
    ]
    parts = [f"# {_words(name)}", *([question] if question else []), outcome[0]]
    parts.append("\n".join([head, "|---" * (len(TABLE) + 2) + "|", *rows]))
    parts.append("Mean +- standard deviation over seeds. The first row is the baseline of the others.")
    if found["differences"]:
        parts.append(_differences(found))
    parts += [*outcome[1:], "![what one unit of money became](curve.png)"]
    if len(groups) > 1:
        deltas = [
            f"| `{row['field']}` | " + " | ".join(f"`{_cell(shown(row['values'][label]))}`" for label in labels) + " |"
            for row in found["config"]
        ]
        parts += [
            "## What differed",
            "\n".join([f"| field | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|", *deltas]),
        ]
    parts += ["## Again", "\n".join(f"    {commands[label]}" for label in labels), "\n".join(_provenance(groups))]
    return "\n\n".join(parts) + "\n"


def _differences(found: dict[str, Any]) -> str:
    """The Sharpe ratios beside the baseline's, on validation days: by days and by seeds."""
    rows = []
    for difference in found["differences"]:
        market = difference["sharpe"].get("valid")
        seeds = difference["seeds"].get("valid.profit.sharpe_ratio") or {"value": None, "low": None, "high": None}
        if market:
            needed = seeds.get("seeds_needed")
            several = min(seeds.get("seeds", [0])) > 1
            cells = (
                f"{difference['group']} less {difference['against']}",
                f"{signed(market['value'])} {between(market)}",
                f"{signed(seeds['value'])} {between(seeds)}" if several else "one seed",
                f"{needed:,}" if needed else "no number" if several else "-",
            )
            rows.append(f"| {' | '.join(cells)} |")
    head = "| validation Sharpe ratio | by days, 95 % | by seeds, 95 % | seeds needed |\n|---|---|---|---|"
    note = (
        "By days: paired bootstrap of the daily returns (Ledoit and Wolf 2008). By seeds: Welch's interval. Seeds "
        "needed on each side to tell a difference of this size from none (two-sample t test, 80 % power, 5 % level)."
    )
    return "\n".join([head, *rows]) + f"\n\n{note}"


def _provenance(groups: Sequence[Group]) -> list[str]:
    """Code, data and machine, each value once."""
    runs = [run for group in groups for run in group.runs]

    def every(label: str, value: Any) -> str:
        texts = dict.fromkeys(str(value(run)) for run in runs)
        return f"- {label}: {'; '.join(texts)}"

    def machine(run: RunFolder) -> str:
        m = run.manifest
        versions = m.get("versions") or {}
        return (
            f"{dig(m, 'cpu', 'model') or m.get('platform')}, {m.get('threads')} threads, torch {versions.get('torch')}"
        )

    def code(run: RunFolder) -> str:
        known = run.manifest.get("code") or {}
        dirty = ", with uncommitted changes" if known.get("dirty") else ""
        return f"commit {str(known.get('commit'))[:12]}{dirty}, sources {known.get('digest')}"

    def data(run: RunFolder) -> str:
        known = run.manifest.get("data") or {}
        span = f"{known.get('first')} to {known.get('last')}"
        return f"{known.get('source')}, {span}, fingerprint {known.get('fingerprint')}"

    return [every("Code", code), every("Data", data), every("Machine", machine)]


def _config_diffs(comparison: Comparison) -> str:
    """Of each group, what differs from the defaults; the seed as the list of all."""
    diffs = {}
    for group, found in zip(comparison.groups, comparison.found["groups"], strict=True):
        fields = {n: v for n, v in group.runs[0].config_diff.items() if n not in ("seed", "output_dir", "resume")}
        seeds = list({canonical(run.manifest.get("seed")): run.manifest.get("seed") for run in group.runs}.values())
        diffs[group.label] = {"title": found["title"], "seeds": seeds, "config_diff": fields}
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


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number != 1 else ''}"
