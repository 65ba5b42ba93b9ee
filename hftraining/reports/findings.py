"""What a report says of evidence: the verdict in plain words, and the numbers, baselines and scores behind it."""

import math
import re
from html import escape
from typing import Any

from hftraining.reports.charts import WINDOWS
from hftraining.reports.tables import DASH, count, fixed, percent
from hftraining.runs.record import dig

BASELINES = {
    "buy_and_hold": "Buy and hold, equal weights",
    "momentum": "Momentum, 12 months less the last",
    "trend": "Trend of each stock, by its volatility",
    "reversal": "Reversal of the last day",
    "ridge": "Ridge regression, same features",
    "lightgbm": "LightGBM, same features",
}
SCORES = {
    "ic": ("Information coefficient", "correlation of forecast and outcome across stocks, each day"),
    "rank_ic": ("Rank information coefficient", "the same of ranks"),
    "accuracy": ("Right direction", "the share of forecasts with the right sign"),
    "mcc": ("Matthews correlation", "of forecast and actual direction; 0 is a coin"),
}
CHANCE_P = 0.05  # as the verdict's rules have it: with a smaller p it was the number of trials that decided
# How a verdict begins -> what it means to someone who reads only this.
MEANINGS = {
    "indistinguishable": "Moved to other days at random, the same positions often did as well: luck alone explains "
    "this result.",
    "beats chance but": "The days of its positions were chosen better than luck chooses, but what that earned cannot "
    "be told from simply holding the stocks.",
    "beats chance": "The days of its positions were chosen better than luck chooses.",
    "beats buy and hold": "The days of its positions were chosen better than luck chooses, and that earned more than "
    "simply holding the stocks, by more than the margin of error.",
}


def verdict_title(verdict: str) -> str:
    """The verdict as the headline, the numbers in brackets at its end set smaller."""
    parts = re.fullmatch(r"(.*?)\s*(\(.*\))?\.?", verdict, re.S)
    sentence, numbers = parts.groups() if parts else (verdict, None)
    return escape(sentence) + (f' <span class="because">{escape(numbers)}</span>' if numbers else "")


def verdict_meaning(verdict: str) -> str:
    """One sentence that explains a verdict; nothing for one that the rules do not know."""
    p = re.search(r"p = ([\d.]+\d)", verdict)
    if verdict.lower().startswith("indistinguishable") and p and float(p[1]) <= CHANCE_P:
        return "Of so many tries one was bound to look this good without any skill: luck alone explains this result."
    return next((text for start, text in MEANINGS.items() if verdict.lower().startswith(start)), "")


def evidence_table(result: dict) -> str:
    """What luck would have made of each window, how sure the Sharpe ratio is, and what remains after N trials."""
    windows = [w for w in WINDOWS if any(dig(result, w, key) for key in ("null", "interval", "difference"))]
    deflated = result.get("deflated_sharpe")
    if not windows and deflated is None:
        return ""
    shown = {
        ("Chance of luck doing as well, p", "null.p"): [fixed(dig(result, w, "null", "p"), 3) for w in windows],
        ("Sharpe ratio of the model", "interval"): [_sharpe(result, w) for w in windows],
        ("Sharpe ratio of luck, 5% to 95%", "null.band"): [_band(result, w, "band") for w in windows],
        ("Over buy and hold, in Sharpe", "difference"): [_difference(dig(result, w)) for w in windows],
        ("Luck that picks the stocks too: p", "null.selection_p"): [
            fixed(dig(result, w, "null", "selection_p"), 3) for w in windows
        ],
        ("and its Sharpe ratio", "null.selection_band"): [_band(result, w, "selection_band") for w in windows],
    }
    body = "".join(
        f'<tr><th scope="row">{label}</th>'
        + "".join(f'<td data-metric="{w}.{name}">{text}</td>' for w, text in zip(windows, texts, strict=True))
        + "</tr>"
        for (label, name), texts in shown.items()
        if set(texts) - {DASH}
    )
    trials = result.get("n_trials")
    if deflated is not None or trials is not None:
        # Deflation is of validation, where the trials competed; the columns behind it stay empty.
        body += (
            f'<tr><th scope="row">Deflated Sharpe ratio{_of_trials(trials)}</th>'
            f'<td data-metric="deflated_sharpe">{fixed(deflated, 3)}</td>{"<td></td>" * (len(windows) - 1)}</tr>'
        )
    head = "".join(f'<th scope="col">{WINDOWS[w].capitalize()}</th>' for w in windows)
    draws = next((d for w in windows if (d := dig(result, w, "null", "draws"))), None)
    note = "Luck is the same positions, moved in time at random" + (f", {count(draws)} times. " if draws else ". ")
    note += "Square brackets hold 95% intervals. The deflated Sharpe ratio is the probability that the true one beats "
    note += "the best that as many trials without any skill would have shown."
    return (
        f'<section class="narrow evidence"><h2>Evidence</h2><div class="scroll"><table><thead><tr><th></th>{head}</tr>'
        f'</thead><tbody>{body}</tbody></table></div><p class="quiet">{note}</p></section>'
    )


def baselines_table(result: dict) -> str:
    """Every baseline beside the model: return, Sharpe ratio, and how much more than buy and hold."""
    windows = [w for w in WINDOWS if set(dig(result, w, "baselines") or {}) - {"buy_and_hold"}]
    if not windows:
        return ""
    found = [name for w in windows for name in dig(result, w, "baselines")]
    names = [name for name in BASELINES if name in found]
    names += sorted(set(found) - set(names))
    own = [
        (f"{w}.profit", (dig(result, w, "profit") or {}) | {"difference": dig(result, w, "difference")})
        for w in windows
    ]
    rows = [_baseline_row("The model", "ours", own)]
    for name in names:
        cells = [(f"{w}.baselines.{escape(name)}", dig(result, w, "baselines", name)) for w in windows]
        rows.append(_baseline_row(BASELINES.get(name, name.replace("_", " ")), "theirs", cells))
    over = "".join(f'<th colspan="3" scope="colgroup">{WINDOWS[w].capitalize()}</th>' for w in windows)
    under = '<th scope="col">return</th><th scope="col">Sharpe</th><th scope="col">model&rsquo;s lead</th>' * len(
        windows
    )
    return (
        '<section><h2>Baselines</h2><div class="scroll"><table class="baselines"><thead>'
        f"<tr><th></th>{over}</tr><tr><th></th>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="quiet">All went through the same days, fills and costs; the rules of the literature trade without '
        "stops. Over buy and hold is a difference of Sharpe ratios with its 95% interval: where that holds zero, "
        "neither can be called better.</p></section>"
    )


def scores_table(result: dict) -> str:
    """How well the forecasts order and point, with intervals over days."""
    windows = [w for w in WINDOWS if dig(result, w, "scores")]
    if not windows:
        return ""
    rows = []
    for name, (label, meaning) in SCORES.items():
        found = [dig(result, w, "scores", name) for w in windows]
        if any(found):
            cells = "".join(
                f'<td data-metric="{w}.scores.{name}">{fixed(dig(score, "value"), 3)}</td>'
                f'<td class="theirs">{_interval(dig(score, "low"), dig(score, "high"), 3)}</td>'
                f'<td class="theirs">{fixed(dig(score, "t"), 1)}</td>'
                for w, score in zip(windows, found, strict=True)
            )
            rows.append(f'<tr title="{meaning}"><th scope="row">{label}</th>{cells}</tr>')
    over = "".join(
        f'<th colspan="3" scope="colgroup">{WINDOWS[w].capitalize()}{_of_days(dig(result, w, "scores"))}</th>'
        for w in windows
    )
    under = '<th scope="col">value</th><th scope="col">95% interval</th><th scope="col">t</th>' * len(windows)
    return (
        '<section><h2>Forecast scores</h2><div class="scroll"><table class="scores"><thead>'
        f"<tr><th></th>{over}</tr><tr><th></th>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="quiet">The information coefficient is the correlation of forecast and outcome across stocks, day by '
        "day. Stocks move together, so a day counts once.</p></section>"
    )


def leak_proof_text(proof: Any) -> str | None:
    """What the leak proof found at the start of the run, in a few words."""
    if not isinstance(proof, dict) or proof.get("ok") is None:
        return None
    days = proof.get("days")
    where = f"on {days} random day{'s' if days != 1 else ''}" if days is not None else "at the start"
    return f"{'nothing leaked' if proof['ok'] else 'FAILED: later days changed earlier outputs'}, tried {where}"


def _baseline_row(label: str, kind: str, cells: list[tuple[str, Any]]) -> str:
    text = ""
    for path, metrics in cells:
        text += f'<td class="{kind}" data-metric="{path}.total_return">{percent(dig(metrics, "total_return"))}</td>'
        text += f'<td class="{kind}" data-metric="{path}.sharpe_ratio">{fixed(dig(metrics, "sharpe_ratio"))}</td>'
        text += f'<td data-metric="{path}.difference">{_difference(metrics)}</td>'
    return f'<tr><th scope="row">{escape(label)}</th>{text}</tr>'


def _sharpe(result: dict, window: str) -> str:
    value = fixed(dig(result, window, "profit", "sharpe_ratio"))
    interval = dig(result, window, "interval")
    return f"{value} {_interval(*interval)}" if _numbers(interval, 2) else value


def _difference(holder: Any) -> str:
    found = dig(holder, "difference")
    value = dig(found, "value")
    if value is None or not math.isfinite(value):
        return DASH
    sign = "+" if value > 0 else ""
    return f"{sign}{fixed(value)} {_interval(dig(found, 'low'), dig(found, 'high'))}".rstrip()


def _band(result: dict, window: str, name: str) -> str:
    band = dig(result, window, "null", name)
    return f"{fixed(band[0])} to {fixed(band[2])}" if _numbers(band, 3) else DASH


def _interval(low: Any, high: Any, digits: int = 2) -> str:
    if not _numbers([low, high], 2):
        return DASH
    return f'<span class="between">[{fixed(low, digits)}, {fixed(high, digits)}]</span>'


def _numbers(values: Any, length: int) -> bool:
    """Whether this is a list of so many finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == length
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )


def _of_trials(number: Any) -> str:
    return "" if number is None else f", {count(number)} trial{'s' if number != 1 else ''}"


def _of_days(scores: dict) -> str:
    days = next((d for score in scores.values() if (d := dig(score, "days"))), None)
    return f", {count(days)} days" if days else ""
