"""The report of a run: one page of HTML, built from the files of its folder alone."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from hftraining.core.files import write_text_atomically
from hftraining.core.values import plain
from hftraining.reports.charts import WINDOWS, Figure, calibration_chart, drawdown_chart, equity_chart, probes_chart
from hftraining.reports.decisions import decision_table
from hftraining.reports.findings import (
    baselines_table,
    evidence_table,
    leak_proof_text,
    scores_table,
    verdict_meaning,
    verdict_title,
)
from hftraining.reports.page import page, place_plotly
from hftraining.reports.tables import count, fixed, loss_table, metrics_table, percent, trades_table
from hftraining.runs.folder import RunFolder, read_run
from hftraining.runs.record import dig

_SYMBOLS_SHOWN = 12


def write_report(folder: Path) -> Path:
    """Write report.html, and plotly.min.js beside it, into a run folder, finished or interrupted.

    Raises ValueError when the folder is not a run.
    """
    run = read_run(folder)
    figures: dict[str, Figure] = {}
    body = "\n".join(
        part
        for part in (
            _headline(run),
            _warnings(run),
            decision_table(run.result),
            evidence_table(run.result),
            _equity(run, figures),
            metrics_table(run.result),
            baselines_table(run.result),
            _probes(run, figures),
            loss_table(run.result),
            scores_table(run.result),
            _calibration(run, figures),
            trades_table(run.trades),
            _changes(run),
            _provenance(run),
        )
        if part
    )
    place_plotly(folder, run.outputs)
    path = folder / "report.html"
    title = f"{run.manifest.get('name') or 'run'} - {run.manifest.get('signature') or 'report'}"
    write_text_atomically(path, page(title, body, figures))
    return path


def _headline(run: RunFolder) -> str:
    started = str(run.manifest.get("started") or "")[:16].replace("T", " ")
    eyebrow = [str(run.manifest.get(key) or "") for key in ("kind", "name", "signature")] + [started]
    verdict = str(run.result.get("verdict") or "")
    title = verdict_title(verdict) if verdict else escape(_headline_text(run))
    sentences = (verdict_meaning(verdict), _profit_sentence(run), _loss_sentence(run.result))
    lede = [sentence for sentence in sentences if sentence]
    tiles = "".join(_tile(run.result, window) for window in WINDOWS if dig(run.result, window, "profit"))
    untested = tiles and not verdict
    labels = " &middot; ".join(f"<span>{escape(text)}</span>" for text in eyebrow if text)
    return (
        f'<header><p class="eyebrow">{labels}</p>'
        f'<h1 id="headline">{title}</h1>'
        + "".join(f'<p class="lede">{sentence}</p>' for sentence in lede)
        + (f'<div class="windows">{tiles}</div>' if tiles else "")
        + ('<p class="quiet">None of these numbers has been tested against luck.</p>' if untested else "")
        + "</header>"
    )


def _headline_text(run: RunFolder) -> str:
    """Of a run without a verdict: what the two windows show beside buy and hold."""
    if not run.result:
        steps = f"at step {run.history[-1]['step']:,}" if run.history else "before its first step"
        return f"Not finished: the run stands {steps}, not yet evaluated."
    how = {}
    for window, label in WINDOWS.items():
        ours = dig(run.result, window, "profit", "total_return")
        theirs = dig(run.result, window, "baselines", "buy_and_hold", "total_return")
        if ours is not None and theirs is not None:
            how[label] = "more than" if ours > theirs else "less than" if ours < theirs else "as much as"
    if all(dig(run.result, window, "profit", "exposure") == 0 for window in WINDOWS if window in run.result) and how:
        return "Took no position at all."
    if len(set(how.values())) == 2:
        (first, one), (second, other) = how.items()
        return f"Earned {one} buy and hold in {first}, but {other} it in {second}."
    if how:
        return f"Earned {next(iter(how.values()))} buy and hold in {' and in '.join(how)}."
    return "Finished, without a profit to show."


def _profit_sentence(run: RunFolder) -> str:
    clauses = []
    for window, label in WINDOWS.items():
        ours, theirs = dig(run.result, window, "profit"), dig(run.result, window, "baselines", "buy_and_hold")
        if ours and theirs:
            clauses.append(
                f"over the {count(dig(run.result, window, 'days'))} {label} days it returned "
                f"{percent(ours.get('total_return'))} at a Sharpe ratio of {fixed(ours.get('sharpe_ratio'))}, where "
                f"buy and hold returned {percent(theirs.get('total_return'))} at {fixed(theirs.get('sharpe_ratio'))}"
            )
    probes = [row for row in run.history if "profit/total_return" in row]
    if not run.result and probes:
        last = probes[-1]
        clauses.append(
            f"its last probe, at step {count(last['step'])}, returned {percent(last['profit/total_return'])} on the "
            f"validation days at a Sharpe ratio of {fixed(last.get('profit/sharpe_ratio'))}"
        )
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _loss_sentence(result: dict) -> str:
    names = ("model", "nothing_changes", "unconditional")
    model, naive, constant = (dig(result, "loss", "valid", name) for name in names)
    if model is None or naive is None:
        return ""
    beats = "beats" if model < naive else "does not beat"
    losses = f"a loss of {fixed(model, 4)} against {fixed(naive, 4)}"
    if model < naive and constant is not None and model >= constant:
        losses += f"; one constant forecast, at {fixed(constant, 4)}, does as well or better"
    return f"Its forecast {beats} &ldquo;nothing changes&rdquo; on validation: {losses}."


def _tile(result: dict, window: str) -> str:
    ours, theirs = dig(result, window, "profit"), dig(result, window, "baselines", "buy_and_hold")
    days = f"{count(dig(result, window, 'days'))} days"
    span = [str(dig(result, window, end))[:10] for end in ("first", "last") if dig(result, window, end)]
    verdict = dig(result, window, "verdict")
    verdict = f'<p class="against">{escape(str(verdict))}</p>' if verdict else ""
    against = f"buy and hold <b>{percent(theirs.get('total_return'))}</b>" if theirs else "&nbsp;"
    return (
        f'<article class="window"><h3>{WINDOWS[window].capitalize()}'
        f"<span>{escape(' to '.join(span))} &middot; {days}</span></h3>"
        f'<p class="big">{percent(ours.get("total_return"))}</p><p class="against">{against}</p>'
        f"{verdict}</article>"
    )


def _warnings(run: RunFolder) -> str:
    warnings = [str(warning) for warning in run.result.get("warnings") or []]
    skipped = run.result.get("skipped_steps")
    if skipped:
        warnings.append(f"{skipped} training step{'s were' if skipped > 1 else ' was'} skipped: not finite.")
    opened = run.result.get("test_openings")
    if opened is not None and opened > 1 and not any("test window" in warning for warning in warnings):
        warnings.append(
            f"The test window of this data has been opened {opened} times: what it shows is no longer a first look."
        )
    if dig(run.result, "leak_proof", "ok") is False:
        warnings.append("The leak proof failed: none of these numbers can be believed.")
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<aside class="note" aria-label="Warnings"><ul>{items}</ul></aside>'


def _equity(run: RunFolder, figures: dict[str, Figure]) -> str:
    if run.equity is None or run.equity.empty:
        return ""
    start = float(run.initial_capital or run.equity["equity"].iloc[0])
    figures["equity-chart"] = equity_chart(run.equity, start, run.null_band)
    figures["drawdown-chart"] = drawdown_chart(run.equity, start)
    luck = (
        " The shaded fan is where luck would have stood: the same positions, moved in time at random; its dark part "
        "holds half of the draws, all of it 90%."
    )
    return (
        '<section><h2>Equity</h2><div class="chart" id="equity-chart"></div><p class="quiet">The account at each '
        f"close, after all costs; each window starts with {count(start)}. The model was trained on neither; the "
        f"validation days decided which step of it was kept.{luck if run.null_band is not None else ''}</p>"
        '</section><section><h2>Drawdown</h2><div class="chart low" id="drawdown-chart"></div></section>'
    )


def _probes(run: RunFolder, figures: dict[str, Figure]) -> str:
    held = dig(run.result, "valid", "baselines", "buy_and_hold", "sharpe_ratio")
    figure = probes_chart(run.history, run.result.get("best_step"), held)
    if figure is None:
        return ""
    figures["probes-chart"] = figure
    found = run.result.get("profit_loss_correlation") or {}
    text = ""
    if found.get("rank_correlation") is not None:
        interval = found.get("interval") or []
        between = f" (interval {fixed(interval[0])} to {fixed(interval[1])})" if len(interval) == 2 else ""
        text = (
            f'<p class="quiet">Over {count(found.get("probes"))} probes the rank correlation of loss and profit is '
            f"{fixed(found['rank_correlation'])}{between}. Below zero, a better forecast went with more profit.</p>"
        )
    return f'<section><h2>Loss and profit</h2><div class="chart tall" id="probes-chart"></div>{text}</section>'


def _calibration(run: RunFolder, figures: dict[str, Figure]) -> str:
    figure = calibration_chart(run.result)
    if figure is None:
        return ""
    figures["calibration-chart"] = figure
    return (
        '<section class="narrow"><h2>Calibration</h2><div class="chart square" id="calibration-chart"></div>'
        '<p class="quiet">Of an honest quantile of level 10%, 10% of the outcomes lie below it: the dotted diagonal. '
        "Steeper than it, the forecasts claim too wide a range; flatter, too narrow a one.</p></section>"
    )


def _changes(run: RunFolder) -> str:
    if not run.config_diff:
        return '<section><h2>What differs from the defaults</h2><p class="quiet">Nothing.</p></section>'
    rows = ((f"<code>{escape(name)}</code>", f"<code>{_value(v)}</code>") for name, v in run.config_diff.items())
    return f'<section class="wide"><h2>What differs from the defaults</h2>{_definitions(rows)}</section>'


def _provenance(run: RunFolder) -> str:
    m = run.manifest
    data, code = m.get("data") or {}, m.get("code") or {}
    symbols = [str(symbol) for symbol in data.get("symbols") or []]
    more = len(symbols) - _SYMBOLS_SHOWN
    shown = ", ".join(symbols[:_SYMBOLS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
    state = ", with uncommitted changes" if code.get("dirty") else ""
    versions = ", ".join(f"{name} {version}" for name, version in (m.get("versions") or {}).items() if version)
    span = [str(data[end]) for end in ("first", "last") if data.get(end)]
    facts: dict[str, Any] = {
        "Signature": m.get("signature"),
        "Command": " ".join(str(word) for word in m.get("argv") or []),
        "Started": m.get("started"),
        "Duration": _duration(run.result.get("seconds")),
        "Steps": f"{run.result['steps']:,}" if run.result.get("steps") is not None else None,
        "Seed": m.get("seed"),
        "Data": data.get("source"),
        "Symbols": f"{len(symbols):,}: {shown}" if symbols else None,
        "Sessions": " to ".join(span),
        "Data fingerprint": data.get("fingerprint"),
        "Trials": _times(run.result.get("n_trials"), "{} on these validation days, this one included"),
        "Test window": _times(run.result.get("test_openings"), "opened {} so far", " time"),
        "Leak proof": leak_proof_text(run.result.get("leak_proof")),
        "Code": f"{str(code['commit'])[:12]}{state}" if code.get("commit") else "not in a commit",
        "Machine": f"{m.get('platform')}, {m.get('cpu_count')} processors, {m.get('threads')} threads used",
        "Versions": f"Python {m.get('python')}, {versions}",
    }
    rows = ((name, escape(str(value))) for name, value in facts.items() if value not in (None, ""))
    return f"<section><h2>Provenance</h2>{_definitions(rows)}</section>"


def _definitions(rows: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in rows)}</dl>"


def _times(number: int | None, pattern: str, noun: str = "") -> str | None:
    if number is None:
        return None
    return pattern.format(f"{number:,}{noun}{'s' if noun and number != 1 else ''}")


def _value(value: Any) -> str:
    return escape(value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False))


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
