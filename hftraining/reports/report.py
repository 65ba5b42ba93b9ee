"""report.html: the report of a run, built only from the files in its folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hftraining.core.metrics import PROFIT
from hftraining.reports import findings, members, tables, words
from hftraining.reports.breakdown import MONTHS, SYMBOLS_SHOWN, cost_rows, symbol_rows, years_of
from hftraining.reports.charts import run_figures
from hftraining.reports.format import is_known, plural
from hftraining.reports.page import write_page
from hftraining.reports.recommendations import CANDIDATES, COLUMNS
from hftraining.runs.folder import RunFolder, read_run
from hftraining.runs.member_results import EnsembleResult
from hftraining.runs.result import PERIODS, RunResult


def write_report(folder: Path) -> Path:
    """Write report.html, and plotly.min.js beside it, into a finished or interrupted run's folder; returns its path.

    Raises UserError when the folder is not a run, or damaged.
    """
    run = read_run(folder)
    context = _context(run, run.result or RunResult())
    return write_page(folder / "report.html", run.outputs, run_figures(run), **context)


def _context(run: RunFolder, result: RunResult) -> dict[str, Any]:
    """The values of the template; an empty table or dict leaves its section out."""
    periods = result.periods
    measured = {name: w for name, w in periods.items() if w.null or w.interval or w.difference or w.benchmark}
    compared = {name: w for name, w in periods.items() if set(w.baselines) - {"buy_and_hold"}}
    scored = {name: w for name, w in periods.items() if w.scores}
    traded = {name: w for name, w in periods.items() if w.profit}
    exit_periods, exits = ([], []) if run.trades is None else tables.exit_rows(run.trades)
    symbol_periods, symbols = ([], []) if run.trades is None else symbol_rows(run.trades)
    is_a_book = run.manifest.get("kind") == "evaluations"
    said = findings.of_a_book if is_a_book else str
    evidence = [(replace(row, words=said(row.words)), texts) for row, texts in words.evidence_rows(measured)]
    capital, rules = run.initial_capital, run.config.get("profit_tracker") or {}
    return {
        "title": f"{run.name or 'run'} - {run.signature or 'report'}",
        "run": run,
        "result": result,
        "words": {name: words.capitalize() for name, words in PERIODS.items()},
        "headline": findings.headline(run),
        "verdict": result.verdict,
        "alarms": [*([result.in_sample] if result.in_sample else []), *words.alarm_lines(result)],
        "sentences": [said(sentence) for sentence in findings.sentences(run)],
        "who": "book" if is_a_book else "model",
        "training_days": findings.training_days(run),
        "traded": traded,
        "warnings": findings.warnings(result),
        "candidates": CANDIDATES,
        "candidate_columns": COLUMNS,
        **_members(run, result.ensemble, result),
        "measured": measured,
        "evidence_rows": evidence,
        "deflated_alone": _deflated_alone(result),
        "dealt": any(w.null and is_known(w.null.selection_p) for w in measured.values()),
        "deflated_meaning": _deflated_meaning(result),
        "draws": next((w.null.draws for w in measured.values() if w.null and w.null.draws), 0),
        "metrics": PROFIT,
        "compared": compared,
        "loop_of": {name: place for place, name in enumerate(compared)},
        "baseline_rows": tables.baseline_rows(compared, "book" if is_a_book else "model"),
        "fold_columns": tables.FOLD_COLUMNS,
        "fold_rows": tables.fold_rows(result.folds or []),
        "correlation": findings.correlation(result),
        "score_headings": [
            f"{PERIODS[name].capitalize()}, {plural(max(score.days for score in w.scores.values()), 'day')}"
            for name, w in scored.items()
        ],
        "score_rows": tables.score_rows(scored),
        "exit_periods": exit_periods,
        "exits": exits,
        "symbol_periods": symbol_periods,
        "symbols": symbols
        if len(symbols) <= 2 * SYMBOLS_SHOWN
        else [*symbols[:SYMBOLS_SHOWN], *symbols[-SYMBOLS_SHOWN:]],
        "symbols_left_out": max(0, len(symbols) - 2 * SYMBOLS_SHOWN),
        "years": years_of(run.equity, capital) if run.equity is not None and capital else {},
        "months": MONTHS,
        "cost_rows": cost_rows(traded, *(_rate(rules.get(name)) for name in ("commission", "slippage"))),
        "trades": [] if run.trades is None else tables.trades_shown(run.trades),
        "leak_proof": findings.leak_proof(result),
    }


def _members(run: RunFolder, found: EnsembleResult | None, result: RunResult) -> dict[str, Any]:
    """The values of the section on the members of an ensemble."""
    if found is None:
        return {"ensemble": None}
    names = members.periods_of(found)
    return {
        "ensemble": found,
        "ensemble_sentences": members.sentences(found, members.cpu_seconds(run.path, found)),
        "ensemble_periods": names,
        "ensemble_rows": {name: members.as_row(result, name) for name in names},
        "ensemble_matrices": members.matrices(found),
        "member_columns": members.COLUMNS,
    }


def _rate(value: object) -> float:
    """A cost of the config, a fraction; anybody may have written config.yaml."""
    return float(value) if isinstance(value, (int, float)) and is_known(value) else 0.0


def _deflated_alone(result: RunResult) -> bool:
    """Whether a deflated Sharpe ratio is known, but none of the returns beyond the benchmark: an older result."""
    beyond = any(period.benchmark and is_known(period.benchmark.deflated_sharpe) for period in result.periods.values())
    return is_known(result.deflated_sharpe) and not beyond


def _deflated_meaning(result: RunResult) -> str:
    """What the deflated Sharpe ratio of this report is; empty where it has none."""
    if _deflated_alone(result):
        return words.deflated_meaning(result.n_trials, beyond=False)
    known = [w.benchmark for w in result.periods.values() if w.benchmark and is_known(w.benchmark.deflated_sharpe)]
    counts = {found.n_trials for found in known}
    # The test days have been opened less often than trials were made on the validation days.
    return words.deflated_meaning(counts.pop() if len(counts) == 1 else None) if known else ""
