"""What the report of a fine-tune says of its decision: the base model beside everything that was tried."""

import math
from html import escape
from typing import Any

from hftraining.reports.tables import DASH, count, fixed, percent
from hftraining.runs.record import dig

CANDIDATES = {
    "base": "Base model as it is",
    "full": "All weights moved",
    "head": "The head alone moved",
    "lora": "A low-rank change",
    "scratch": "Trained from scratch",
    "ridge": "Ridge regression, same features",
    "nothing_changes": "Nothing changes",
}


def decision_table(result: dict) -> str:
    """The decision and its table, nothing for a run that started from no base model."""
    decision = result.get("decision")
    if not decision:
        return ""
    rows = []
    for name, row in decision["candidates"].items():
        kind = ' class="chosen"' if name == decision["choice"] else ""
        kept = ' <span class="between">kept</span>' if name == decision["choice"] else ""
        path = f"decision.{escape(name)}"
        cells = (
            ("loss", fixed(row.get("loss"), 4)),
            ("loss_difference", _apart(row.get("loss_difference"), 4)),
            ("total_return", percent(dig(row, "profit", "total_return"))),
            ("sharpe_ratio", fixed(dig(row, "profit", "sharpe_ratio"))),
            ("difference", _apart(row.get("difference"), 2)),
            ("p", fixed(row.get("p"), 3)),
            ("forgetting", _apart(row.get("forgetting"), 4)),
        )
        body = "".join(f'<td data-metric="{path}.{key}">{text}</td>' for key, text in cells)
        label = CANDIDATES.get(name, name.replace("_", " "))
        rows.append(f'<tr{kind}><th scope="row">{escape(label)}{kept}</th>{body}</tr>')
    heads = ("loss", "less the base&rsquo;s", "return", "Sharpe", "less the base&rsquo;s", "luck, p", "forgetting")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    others = decision.get("other_symbols")
    forgetting = (
        f"Forgetting is how much the loss rose on the base&rsquo;s {count(others)} other stocks. " if others else ""
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    trials = f"{count(decision['n_trials'])} trials on these data and days"
    return (
        f'<section class="decision"><h2>Decision</h2><p class="lede">{_sentence(decision)}</p>'
        f'<div class="scroll">{table}</div><p class="quiet">All on the validation days, after all costs, with 95% '
        f"intervals; {trials}. {forgetting}A candidate takes the base&rsquo;s place when it beats luck and the base; "
        "otherwise the base is kept.</p></section>"
    )


def _sentence(decision: dict) -> str:
    sentence = escape(str(decision["sentence"]))
    return sentence[:1].upper() + sentence[1:] + "."


def _apart(found: Any, digits: int) -> str:
    value, low, high = (dig(found, key) for key in ("value", "low", "high"))
    if value is None or not math.isfinite(value):
        return DASH
    sign = "+" if value > 0 else ""
    ends = f'<span class="between">[{fixed(low, digits)}, {fixed(high, digits)}]</span>'
    return f"{sign}{fixed(value, digits)} {ends if low is not None and high is not None else ''}".rstrip()
