"""Numbers as people read them, by their unit: +4.2%, 42.0%, 0.84, 6.3x, 1,234; a dash for an unknown one.

All functions return plain text with ASCII signs, as the console prints it; typeset and cell turn it into HTML.
"""

import math
import re
from collections.abc import Sequence
from typing import TypeGuard

from markupsafe import Markup, escape

from hftraining.core.metrics import Unit
from hftraining.runs.quantities import Estimate, Number

UNKNOWN = "-"
PATTERNS = {
    Unit.CHANGE: "{:+,.1%}",
    Unit.SHARE: "{:,.1%}",
    Unit.RATIO: "{:,.2f}",
    Unit.TIMES: "{:,.1f}x",
    Unit.COUNT: "{:,.0f}",
    Unit.LOSS: "{:,.4f}",
    Unit.SCORE: "{:,.3f}",
}


def is_known(value: Number) -> TypeGuard[float]:
    """Whether this is a finite number: None, NaN and infinity are unknown."""
    return value is not None and math.isfinite(value)


def number(value: Number, unit: Unit | str, signed: bool = False) -> str:
    """The number as its unit is written. signed: with a plus sign above zero, as a difference is read."""
    return filled(PATTERNS[Unit(unit)], value, signed)


def filled(pattern: str, value: Number, signed: bool = False) -> str:
    """The number in a pattern of str.format."""
    if not is_known(value):
        return UNKNOWN
    text = pattern.format(value)
    if value < 0 and not re.search("[1-9]", text):  # a loss too small for the pattern would read as -0.0%
        text = pattern.format(0.0)
    return f"+{text}" if signed and value > 0 and text[0] != "+" else text


def tone(value: Number) -> str:
    """What kind of number this is, "gain" or "loss", which a page shows by more than its sign; empty for neither."""
    return ("gain" if value > 0 else "loss" if value < 0 else "") if is_known(value) else ""


def interval(low: Number, high: Number, unit: Unit | str) -> str:
    """[-0.50, 1.00]; a dash where an end is unknown."""
    return f"[{number(low, unit)}, {number(high, unit)}]" if is_known(low) and is_known(high) else UNKNOWN


def between(band: Sequence[Number], unit: Unit | str) -> str:
    """The first and the last of some values: -1.25 to 1.50."""
    if not band or not is_known(band[0]) or not is_known(band[-1]):
        return UNKNOWN
    return f"{number(band[0], unit)} to {number(band[-1], unit)}"


def estimate(found: Estimate | None, unit: Unit | str, signed: bool = True) -> str:
    """A value and, where it is known, its interval: +0.25 [-0.50, 1.00]. signed: as a difference is read."""
    if found is None or not is_known(found.value):
        return UNKNOWN
    return f"{number(found.value, unit, signed)} {interval(found.low, found.high, unit)}".removesuffix(f" {UNKNOWN}")


def plural(n: float, one: str) -> str:
    """1 day, 1,234 days."""
    return f"{number(n, Unit.COUNT)} {one}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """10.5 s, 3 min 12 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def day(date: object) -> str:
    """The ISO date of a date or a time; a dash for None and NaT."""
    return UNKNOWN if str(date) in ("NaT", "None") else str(date)[:10]


def capitalised(text: str) -> str:
    """The text with its first letter as a capital; the others stay as they are."""
    return text[:1].upper() + text[1:]


def split_brackets(text: str) -> tuple[str, str]:
    """A sentence and the brackets at its end, both without the full stop; the sentence as it is without brackets."""
    parts = re.fullmatch(r"(.*?)\s*(\(.*\))\.?", text, re.S)
    return (parts[1], parts[2]) if parts else (text, "")


def typeset(text: str) -> Markup:
    """Plain text as HTML with the signs of a printed page: minus, dash, plus-minus, curly quotes, 95 % on one line.

    A hyphen within a word or a date stays. Markup keeps its tags.
    """
    html = re.sub(r"(?<![\w-])-(?=\d)", "&minus;", str(escape(text)))
    html = re.sub(r"(?<=\d) %", "&nbsp;%", html)
    html = re.sub(r"(?<!\S)-(?![\w-])", "&ndash;", html).replace("+-", "&plusmn;").replace("&#39;", "&rsquo;")
    return Markup(re.sub("&#34;(.*?)&#34;", r"&ldquo;\1&rdquo;", html))


def prose(text: str) -> Markup:
    """A sentence as HTML, typeset, with its dates on one line each."""
    return Markup(re.sub(r"\b(\d{4}-\d\d-\d\d)\b", r'<span class="whole">\1</span>', str(typeset(text))))


def cell(text: str) -> Markup:
    """A number, interval or estimate typeset for a table: the interval small, 6.3x with its times sign."""
    html = re.sub(r"(?<=\d)x\Z", "&times;", typeset(text))
    return Markup(re.sub(r"(\[.*\])\Z", r'<span class="between">\1</span>', html))
