"""What a comparison says, in sentences: the same on the console and on the page. Reads the object of compare.py."""

import math
from typing import Any

Found = dict[str, Any]
SHARPE = "valid.profit.sharpe_ratio"
DAYS = {"valid": "validation", "test": "test"}
IN_WORDS = 2  # more differences stand in the table alone
LONGEST_NAME = 40
POWER = "80 % power, 5 % level"


def headline(found: Found) -> str:
    """The outcome in one sentence, by the validation days: choosing by test days would spend them."""
    groups, differences = found["groups"], found["differences"]
    if len(groups) == 1:
        seeds, sharpe = groups[0]["seeds"], groups[0]["metrics"][SHARPE]
        if not seeds:
            return "None of these runs is finished"
        if len(seeds) == 1:
            return "The same run, repeated"
        return f"{len(seeds)} seeds of one config: a validation Sharpe ratio of {spread_text(sharpe)}"
    first = called(found, differences[0]["against"])
    standings = [standing(difference) for difference in differences]
    known = [how for how in standings if how != "unknown"]
    if not known:
        return "Not enough is finished to compare"
    if len(differences) == 1:
        if known[0] == "alike":
            return f"{called(found, differences[0]['group'])} cannot be told from {first}"
        return (
            f"{called(found, differences[0]['group'])} has a {known[0]} Sharpe ratio than {first}, by more than noise"
        )
    apart = [
        called(found, d["group"]) for d, how in zip(differences, standings, strict=True) if how in ("higher", "lower")
    ]
    if not apart:
        return f"None of the {len(known)} others can be told from {first} by its Sharpe ratio"
    which = ", ".join(apart[:6]) + (f" and {len(apart) - 6} more" if len(apart) > 6 else "")
    return f"Of {len(known)} others, {which} can be told from {first} by the Sharpe ratio"


def called(found: Found, label: str) -> str:
    """A group by its title where that is short, else by its label."""
    title = next((group["title"] for group in found["groups"] if group["label"] == label), label)
    return title if len(title) <= LONGEST_NAME else label


def standing(difference: Found) -> str:
    """higher, lower or alike in the validation Sharpe ratio, or unknown.

    Told apart only when the days and, with several seeds on both sides, the seeds tell them apart, in one direction.
    """
    market = difference["sharpe"].get("valid")
    if not market or market["value"] is None:
        return "unknown"
    parts = [market]
    seeds = difference["seeds"].get(SHARPE)
    if seeds and seeds["low"] is not None:
        parts.append(seeds)
    directions = {math.copysign(1.0, part["value"]) if part["told_apart"] else 0.0 for part in parts}
    return "alike" if directions != {1.0} and directions != {-1.0} else "higher" if directions == {1.0} else "lower"


def sentences(found: Found) -> list[str]:
    """What stands under the headline: each difference in words, and what must be kept in mind."""
    lines = []
    for difference in found["differences"] if len(found["differences"]) <= IN_WORDS else []:
        lines += [text for text in (market_sentence(difference), seed_sentence(difference)) if text]
    if len(found["differences"]) > IN_WORDS:
        lines.append(
            f"Each of the {len(found['differences'])} intervals holds on its own; of so many, one in twenty excludes "
            "zero by chance."
        )
    unfinished = [run["label"] for run in found["runs"] if not run["finished"]]
    if unfinished:
        lines.append(f"Not finished, and left out of every figure: {', '.join(unfinished)}.")
    if found["losses_differ_in"]:
        fields = " and ".join(found["losses_differ_in"])
        lines.append(f"The forecast losses are of different things, by {fields}: do not compare them.")
    if len(found["groups"]) > 1 and not found["data"]["same"]:
        lines.append("They saw other bars: what the config did and what the bars did cannot be told apart.")
    if len(found["groups"]) > 1 and not found["code"]["same"]:
        lines.append("They ran other code, or code not recorded: the config may not be what made the difference.")
    return lines


def market_sentence(difference: Found) -> str:
    """What the days say of the Sharpe ratios."""
    found = difference["sharpe"].get("valid")
    if not found or found["value"] is None:
        return ""
    ours, theirs = difference["group"], difference["against"]
    if found["low"] is None:
        why = "" if found["enough_days"] else f", too few days ({found['days']}) for an interval"
        return f"On the validation days the Sharpe ratio of {ours} lies {beside(found['value'])} that of {theirs}{why}."
    if found["value"] == found["low"] == found["high"] == 0.0:
        return f"On the validation days {ours} earned exactly what {theirs} did."
    rest = "more than the days alone explain" if found["told_apart"] else "the days alone could have made this"
    return (
        f"On {found['days']:,} validation days the Sharpe ratio of {ours} lies {beside(found['value'])} that of "
        f"{theirs}, 95 % interval {between(found)}: {rest}."
    )


def seed_sentence(difference: Found) -> str:
    """What the seeds say of the Sharpe ratios, and how many of them it would take."""
    found = difference["seeds"].get(SHARPE)
    if not found or found["value"] is None:
        return ""
    if min(found["seeds"]) < 2 or found["low"] is None:
        if min(found["seeds"]) < 2:
            return "One seed on a side: how much of this the seed alone makes cannot be said; run seed=1,2,3."
        return ""
    one, other = found["seeds"]
    rest = "more than the seeds alone explain" if found["told_apart"] else "the seeds alone could have made this"
    return (
        f"Over {one} and {other} seeds its mean lies {beside(found['value'])}, {between(found)}: {rest}. "
        f"{needed_text(found['seeds_needed'])}"
    )


def needed_text(seeds: int | None) -> str:
    """How many seeds would tell a difference of this size from none."""
    if seeds is None:
        return "No number of seeds within reason would tell a difference of this size from none."
    return f"To tell a difference of this size from none, {seeds:,} seeds on each side would be needed ({POWER})."


def spread_text(metric: Found, digits: int = 2) -> str:
    """Mean and standard deviation over seeds."""
    if metric["mean"] is None:
        return "-"
    text = f"{metric['mean']:.{digits}f}"
    return text if not metric["sd"] else f"{text} +- {metric['sd']:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign; a dash for none."""
    return "-" if value is None else f"{value:+.{digits}f}"


def beside(value: float) -> str:
    """A difference in words: "0.54 above"."""
    return f"{abs(value):.2f} {'above' if value >= 0 else 'below'}"


def between(interval: Found, digits: int = 2) -> str:
    """[low, high] of an interval; "unknown" without ends."""
    if interval["low"] is None or interval["high"] is None:
        return "unknown"
    return f"[{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"
