"""The sentences of a comparison, the same on the console, on the page and in a record."""

from hftraining.core.metrics import Unit
from hftraining.reports.compare import SHARPE, ByDays, BySeeds, Comparison, Difference
from hftraining.reports.format import interval

IN_WORDS = 2  # more differences are in the table only
LONGEST_NAME = 40
POWER = "80 % power, 5 % level"


def headline(comparison: Comparison) -> str:
    """The outcome in one sentence, on the validation days: a choice by test days would spend them."""
    groups, differences = comparison.groups, comparison.differences
    if len(groups) == 1:
        seeds = groups[0].seeds
        if len(seeds) < 2:
            return "The same run, repeated" if seeds else "None of these runs is finished"
        sharpe = groups[0].spread(SHARPE["valid"]).text()
        return f"{len(seeds)} seeds of one config: a validation Sharpe ratio of {sharpe}"
    first = called(comparison, differences[0].against)
    standings = [(called(comparison, difference.group), standing(difference)) for difference in differences]
    known = [(name, how) for name, how in standings if how != "unknown"]
    if not known:
        return "Not enough is finished to compare"
    if len(differences) == 1:
        name, how = known[0]
        if how == "alike":
            return f"{name} cannot be told from {first}"
        return f"{name} has a {how} Sharpe ratio than {first}, by more than noise"
    apart = [name for name, how in known if how != "alike"]
    if not apart:
        return f"None of the {len(known)} others can be told from {first} by its Sharpe ratio"
    which = ", ".join(apart[:6]) + (f" and {len(apart) - 6} more" if len(apart) > 6 else "")
    return f"Of {len(known)} others, {which} can be told from {first} by the Sharpe ratio"


def called(comparison: Comparison, label: str) -> str:
    """The title of a group where it is short and unique, else the label."""
    titles = {group.label: group.title for group in comparison.groups}
    title = titles.get(label, "")
    return title if 0 < len(title) <= LONGEST_NAME and list(titles.values()).count(title) == 1 else label


def standing(difference: Difference) -> str:
    """Whether the validation Sharpe ratio is "higher", "lower", "alike" or "unknown".

    Higher and lower need an interval by days that excludes zero and, with several seeds on both sides, one by seeds
    that does so in the same direction.
    """
    days, seeds = difference.sharpe.get("valid"), difference.sharpe_by_seeds()
    if days is None or days.value is None:
        return "unknown"
    parts: list[ByDays | BySeeds] = [days, *([seeds] if seeds.low is not None else [])]
    if not all(part.told_apart for part in parts):
        return "alike"
    higher = {(part.value or 0.0) > 0.0 for part in parts}
    return "alike" if len(higher) > 1 else "higher" if higher == {True} else "lower"


def sentences(comparison: Comparison) -> list[str]:
    """The lines under the headline: each difference in words, and warnings."""
    differences, lines = comparison.differences, list[str]()
    for difference in differences if len(differences) <= IN_WORDS else []:
        lines += [text for text in (market_sentence(difference), seed_sentence(difference)) if text]
    if len(differences) > IN_WORDS:
        lines.append(
            f"Each of the {len(differences)} intervals holds on its own: one in twenty excludes zero by chance."
        )
    if unfinished := [run.label for run in comparison.runs if run.result is None]:
        lines.append(f"Not finished, and left out of every figure: {', '.join(unfinished)}.")
    if comparison.losses_differ_in:
        fields = " and ".join(comparison.losses_differ_in)
        differ = "differs" if len(comparison.losses_differ_in) == 1 else "differ"
        lines.append(f"The forecast losses measure different things, because {fields} {differ}: do not compare them.")
    if len(comparison.groups) > 1 and not comparison.data.same:
        lines.append("They saw other bars: the bars, not the config, may have made the difference.")
    if len(comparison.groups) > 1 and not comparison.code.same:
        lines.append("They ran other code, or unrecorded code: the code, not the config, may have made the difference.")
    return lines


def market_sentence(difference: Difference) -> str:
    """The difference of the Sharpe ratios by days."""
    found, ours, theirs = difference.sharpe.get("valid"), difference.group, difference.against
    if found is None or found.value is None:
        return ""
    if found.low is None:
        why = "" if found.enough_days else f"; {found.days} days are too few for an interval"
        return f"On the validation days the Sharpe ratio of {ours} lies {beside(found.value)} that of {theirs}{why}."
    if found.value == found.low == found.high == 0.0:
        return f"On the validation days {ours} earned exactly what {theirs} did."
    rest = "more than the days alone explain" if found.told_apart else "the days alone could explain this"
    return (
        f"On {found.days:,} validation days the Sharpe ratio of {ours} lies {beside(found.value)} that of {theirs}, "
        f"95 % interval {interval(found.low, found.high, Unit.RATIO)}: {rest}."
    )


def seed_sentence(difference: Difference) -> str:
    """The difference of the mean Sharpe ratios by seeds, and how many seeds would be needed."""
    found = difference.sharpe_by_seeds()
    if found.value is None:
        return ""
    if not found.several:
        return "One side has a single seed, so the effect of the seed is unknown: run seed=1,2,3."
    if found.low is None:
        return ""
    one, other = found.seeds
    rest = "more than the seeds alone explain" if found.told_apart else "the seeds alone could explain this"
    needed = "No reasonable number of seeds" if found.seeds_needed is None else f"{found.needed} seeds on each side"
    return (
        f"Over {one} and {other} seeds its mean lies {beside(found.value)}, "
        f"{interval(found.low, found.high, Unit.RATIO)}: {rest}. {needed} would tell a difference of this size from "
        f"none ({POWER})."
    )


def beside(value: float) -> str:
    """A difference in words, such as "0.54 above"."""
    return f"{abs(value):.2f} {'above' if value >= 0 else 'below'}"
