"""compare.html: the comparison as a page, what differed on top, what that did to the numbers below."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hftraining.core.files import write_text_atomically
from hftraining.reports.charts import Figure
from hftraining.reports.compare_charts import COLORS, MOST_CURVES, growth_chart, interval_chart, probes_comparison
from hftraining.reports.compare_text import shown
from hftraining.reports.compare_words import DAYS, headline, sentences
from hftraining.reports.page import page, place_plotly
from hftraining.reports.tables import count, fixed, percent, share
from hftraining.runs.folder import RunFolder

Found = dict[str, Any]
LINES_SHOWN = 40  # of changed bars, for each group
SHOW: dict[str, Callable[[Any], str]] = {
    "fixed": fixed,
    "loss": lambda value: fixed(value, 4),
    "score": lambda value: fixed(value, 3),
    "percent": percent,
    "share": share,
    "count": count,
}
_METHODS = (
    '<p class="quiet">By days: stationary bootstrap of the daily net returns, both resampled with the same days '
    "(Ledoit and Wolf 2008); of several seeds the mean of their returns. By seeds: Welch&rsquo;s interval for the "
    "difference of the means. Seeds needed on each side for a two-sample t test to find a difference of this size with "
    "80 % power at the 5 % level (Cohen 1988). Choose by validation days: a choice made on test days spends them.</p>"
)


def write_comparison(
    folder: Path,
    outputs: Path | None,
    found: Found,
    groups: Mapping[str, Sequence[RunFolder]],
    metrics: Sequence[tuple[str, str, str]],
) -> Path:
    """Write compare.html, and plotly.min.js beside it, into a folder that exists.

    outputs: the outputs folder that it lies below, to share Plotly's script with. groups: the finished runs by the
    label of their group, one a seed. metrics: path in the result, words, format.
    """
    figures: dict[str, Figure] = {}
    titles = {group["label"]: f"{group['label']}: {group['title']}" for group in found["groups"]}
    named = {titles[label]: list(runs) for label, runs in groups.items()}
    parts = (
        _head(found),
        _config(found),
        _data(found),
        _rows_section("Code", found["code"]["rows"], found),
        _rows_section("Environment", found["environment"], found),
        _differences(found, figures),
        _metrics(found, metrics),
        _curves(named, found, figures),
        _runs(found),
    )
    place_plotly(folder, outputs)
    path = folder / "compare.html"
    write_text_atomically(path, page(headline(found), "\n".join(part for part in parts if part), figures))
    return path


def _head(found: Found) -> str:
    runs, groups = len(found["runs"]), len(found["groups"])
    eyebrow = f"<span>{count(runs)} runs</span> &middot; <span>{count(groups)} group{'s' if groups > 1 else ''}</span>"
    legend = "".join(
        f"<dt>{_swatch(place)}{escape(group['label'])}</dt><dd><code>{escape(group['title'])}</code> "
        f'<span class="between">{_seeds(group)}</span></dd>'
        for place, group in enumerate(found["groups"])
    )
    ledes = "".join(f'<p class="lede">{_dressed(text)}</p>' for text in sentences(found))
    title = f'<h1 id="headline" class="names">{_dressed(headline(found))}</h1>'
    return f'<header><p class="eyebrow">{eyebrow}</p>{title}{ledes}</header><section><dl>{legend}</dl></section>'


def _seeds(group: Found) -> str:
    seeds = [str(seed) for seed in group["seeds"]]
    if not seeds:
        return "not finished"
    more = f" and {len(seeds) - 10} more" if len(seeds) > 10 else ""
    return escape(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds[:10])}{more}")


def _config(found: Found) -> str:
    if not found["config"]:
        return '<section><h2>Config</h2><p class="quiet">No field differs.</p></section>'
    return _rows_section("Config", found["config"], found)


def _data(found: Found) -> str:
    data = found["data"]
    if data["same"]:
        return ""
    first = found["groups"][0]["label"]
    bars = ""
    for label, lines in data["bars"].items():
        more = [f"and {count(len(lines) - LINES_SHOWN)} more lines"] if len(lines) > LINES_SHOWN else []
        items = "".join(f"<li>{escape(line)}</li>" for line in [*lines[:LINES_SHOWN], *more])
        bars += f'<p class="quiet">Bars of {escape(first)} (the first) and {escape(label)}:</p>'
        bars += f'<ul class="bars">{items}</ul>'
    return _rows_section("Data", data["rows"], found, bars)


def _rows_section(title: str, rows: list[Found], found: Found, more: str = "") -> str:
    """A table of what differs, a column a group; nothing where nothing does."""
    if not rows and not more:
        return ""
    labels = [group["label"] for group in found["groups"]]
    body = ""
    for row in rows:
        kind = "under" if row.get("chosen_by") else "" if row.get("counts", True) else "still"
        still = ' <span class="between">cannot change a number</span>' if kind == "still" else ""
        cells = "".join(f"<td><code>{escape(shown(row['values'][label]))}</code></td>" for label in labels)
        name = row["field"] if title == "Data" else f"<code>{escape(row['field'])}</code>"
        body += f'<tr class="{kind}"><th scope="row">{name}{still}</th>{cells}</tr>'
    head = "".join(f'<th scope="col" class="left">{_swatch(i)}{escape(label)}</th>' for i, label in enumerate(labels))
    table = _table("delta", f"<th></th>{head}", body) if rows else ""
    return f'<section id="{title.lower()}"><h2>{title}</h2>{table}{more}</section>'


def _table(kind: str, head: str, body: str) -> str:
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _differences(found: Found, figures: dict[str, Figure]) -> str:
    if not found["differences"]:
        return ""
    rows, points = "", list[tuple[str, Found]]()
    for difference in found["differences"]:
        for window, words in DAYS.items():
            market = difference["sharpe"].get(window)
            if not market:
                continue
            seeds = difference["seeds"].get(f"{window}.profit.sharpe_ratio") or {}
            several = min(seeds.get("seeds", [0])) >= 2
            needed = seeds.get("seeds_needed")
            points.append((f"{difference['group']}, {words}", market))
            rows += (
                f'<tr><th scope="row">{escape(difference["group"])}, {words}</th><td>{count(market["days"])}</td>'
                f'<td class="ours">{_signed(market["value"])}</td><td>{_between(market)}</td>'
                f"<td>{_signed(seeds.get('value')) if several else _signed(None)}</td><td>{_between(seeds)}</td>"
                f"<td>{count(needed) if needed else 'no number' if several else count(None)}</td></tr>"
            )
    if not rows:
        return ""
    figure = interval_chart(points, "difference of the annual Sharpe ratio")
    chart = ""
    if figure:
        figures["interval-chart"] = figure
        chart = f'<div class="chart" style="height: {7 + 2.2 * min(len(points), 24):.1f}rem" id="interval-chart"></div>'
    first = escape(found["differences"][0]["against"])
    heads = ("", "days", "difference", "95 % by days", "mean by seeds", "95 % by seeds", "seeds needed")
    table = _table("scores", "".join(f"<th>{head}</th>" for head in heads), rows)
    return f'<section id="differences"><h2>Sharpe ratio beside {first}</h2>{chart}{table}{_METHODS}</section>'


def _metrics(found: Found, metrics: Sequence[tuple[str, str, str]]) -> str:
    """A row a metric where few columns are compared, a row a group where there are many."""
    groups = found["groups"]
    columns: list[tuple[str, Found]] = [(group["label"], group["metrics"]) for group in groups]
    if len(groups) == 1:
        columns = [
            (run["label"], {m: {"mean": value, "sd": None} for m, value in run["metrics"].items()})
            for run in found["runs"]
        ] + [("mean", groups[0]["metrics"])]
    if not any(part["mean"] is not None for _, values in columns for part in values.values()):
        return ""
    if len(columns) > MOST_CURVES:
        chosen = [entry for entry in metrics if entry[0] == "eval.loss" or "sharpe_ratio" in entry[0]]
        head = "".join(f"<th>{escape(words)}</th>" for _, words, _ in chosen)
        body = "".join(
            f'<tr><th scope="row">{escape(label)}</th>{_cells((values[m], how, m) for m, _, how in chosen)}</tr>'
            for label, values in columns
        )
    else:
        head = "".join(f"<th>{escape(label)}</th>" for label, _ in columns)
        body = "".join(
            f'<tr><th scope="row">{escape(words)}</th>{_cells((values[m], how, m) for _, values in columns)}</tr>'
            for m, words, how in metrics
        )
    return f'<section id="metrics"><h2>Metrics</h2>{_table("metrics", f"<th></th>{head}", body)}</section>'


def _cells(parts: Iterable[tuple[Found, str, str]]) -> str:
    cells = ""
    for metric, how, name in parts:
        spread = (
            ""
            if metric["sd"] is None
            else f' <span class="between">&plusmn; {SHOW[how](metric["sd"]).lstrip("+")}</span>'
        )
        cells += f'<td data-metric="{name}">{SHOW[how](metric["mean"])}{spread}</td>'
    return cells


def _curves(named: Mapping[str, Sequence[RunFolder]], found: Found, figures: dict[str, Figure]) -> str:
    text = ""
    if figure := growth_chart(named):
        figures["growth-chart"] = figure
        left_out = len(named) - MOST_CURVES
        more = f" The first {MOST_CURVES} groups; {count(left_out)} more are not drawn." if left_out > 0 else ""
        words = "What one unit of money became, after all costs: the mean over the seeds of a group, each seed thin."
        text += _chart("Equity", "growth-chart", "chart", words + more)
    if figure := probes_comparison(named, not found["losses_differ_in"]):
        figures["compare-probes"] = figure
        loss = "" if not found["losses_differ_in"] else " The losses are of different things and not drawn."
        words = f"On the validation days, the mean over the seeds of a group.{loss}"
        text += _chart("Probes", "compare-probes", "chart tall" if not loss else "chart", words)
    return text


def _chart(title: str, name: str, kind: str, words: str) -> str:
    return f'<section><h2>{title}</h2><div class="{kind}" id="{name}"></div><p class="quiet">{words}</p></section>'


def _runs(found: Found) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(run["label"])}</th><td class="left">{escape(str(run["seed"]))}</td>'
        f'<td class="left"><code>{escape(str(run["signature"]))}</code></td>'
        f'<td class="left">{escape(str(run["verdict"] or "not finished"))}</td>'
        f'<td class="left"><code>{escape(run["folder"])}</code></td></tr>'
        for run in found["runs"]
    )
    heads = ("", "Seed", "Signature", "Verdict on the test days", "Folder")
    head = "".join(f'<th class="left">{head}</th>' for head in heads)
    return f'<section id="runs"><h2>Runs</h2>{_table("delta", head, rows)}</section>'


def _swatch(place: int) -> str:
    return f'<span class="swatch" style="background: var({COLORS[place]})"></span>' if place < len(COLORS) else ""


def _signed(value: float | None) -> str:
    text = fixed(value)
    return f"+{text}" if value is not None and value > 0 else text


def _between(interval: Found) -> str:
    if interval.get("low") is None or interval.get("high") is None:
        return fixed(None)
    return f'<span class="between">{fixed(interval["low"])} to {fixed(interval["high"])}</span>'


def _dressed(text: str) -> str:
    """Plain text with true minus and plus-minus signs."""
    return re.sub(r"(?<![\w-])-(?=\d)", "&minus;", escape(text)).replace("+-", "&plusmn;")
