"""The sentences of a comparison, the same on the console, on the page and in a record."""

from collections.abc import Sequence

from hftraining.core.metrics import Unit
from hftraining.core.untrusted import shown
from hftraining.reports.compare import SHARPE, ByDays, BySeeds, Comparison, Difference
from hftraining.reports.format import capitalised, interval
from hftraining.reports.words import TOO_GOOD, alarm_lines, mean_money, verdicts
from hftraining.runs.quantities import Estimate
from hftraining.runs.result import PERIODS

IN_WORDS = 2  # more differences are in the table only
MONEY_IN_WORDS = 6  # groups
LONGEST_NAME, IN_LEGEND = 80, 6
POWER = "80 % power, 5 % level"


def headline(comparison: Comparison) -> str:
    """The outcome in one sentence, on the validation days and, where these were opened, on the test days."""
    groups, differences = comparison.groups, comparison.differences
    if len(groups) == 1:
        seeds = groups[0].seeds
        if len(seeds) < 2:
            return "The same run, repeated" if seeds else "None of these runs is finished"
        known = {words: groups[0].spread(SHARPE[period]) for period, words in PERIODS.items()}
        said = [f"a {words} Sharpe ratio of {spread.text()}" for words, spread in known.items() if spread.n]
        return f"{len(seeds)} seeds of one config: {' and '.join(said) or 'no Sharpe ratio'}"
    periods = [period for period in PERIODS if any(standing(found, period) != "unknown" for found in differences)]
    if not periods:
        return "Not enough is finished to compare"
    if len(differences) > 1:
        return _outcomes(comparison, periods)
    said = [_outcome(differences[0], period) for period in periods]
    days = [f"on the {PERIODS[period]} days" for period in periods]
    if len(set(said)) == 1:
        return f"{capitalised(' and '.join(days))}, {said[0]}"
    return "; ".join(f"{capitalised(days[i]) if i == 0 else days[i]}, {text}" for i, text in enumerate(said))


def legend(comparison: Comparison) -> str:
    """What the letters of all other sentences stand for; empty for a single group."""
    groups = comparison.groups
    if len(groups) < 2:
        return ""
    named = [f"{group.label} = {shown(group.title, LONGEST_NAME)}" for group in groups[:IN_LEGEND]]
    more = f"; and {len(groups) - IN_LEGEND} more in the table" if len(groups) > IN_LEGEND else ""
    return f"{'; '.join(named)}{more}."


def _outcome(difference: Difference, period: str) -> str:
    """How the one other group stands to the first in a period."""
    ours, theirs, how = difference.group, difference.against, standing(difference, period)
    if how == "unknown":
        return f"{ours} is not known beside {theirs}"
    said = f"{ours}'s Sharpe ratio is {beside(difference.sharpe[period])} than {theirs}'s"
    return f"{said}, which noise alone could explain" if how == "alike" else f"{said}, by more than noise"


def _outcomes(comparison: Comparison, periods: Sequence[str]) -> str:
    """Which of several other groups can be told from the first, in which direction and how far, by period."""
    differences, first = comparison.differences, comparison.differences[0].against
    count = max(sum(standing(found, period) != "unknown" for found in differences) for period in periods)
    said = []
    for period in periods:
        apart = [
            f"{one.group} ({beside(one.sharpe[period])})"
            for one in differences
            if standing(one, period) in ("higher", "lower")
        ]
        which = ", ".join(apart[:6]) + (f" and {len(apart) - 6} more" if len(apart) > 6 else "") or "none"
        said.append(f"{which} on the {PERIODS[period]} days")
    return f"Of {count} others, these can be told from {first} by the Sharpe ratio: {'; '.join(said)}"


def money_sentences(comparison: Comparison) -> list[str]:
    """For each of the first groups its money and its verdict: what was earned stands before what differs."""
    lines = list[str]()
    for group in comparison.groups[:MONEY_IN_WORDS]:
        if results := [run.result for run in group.replicates if run.result]:
            money = mean_money(results) or "It has no profit to show."
            lines.append(f"{group.label}: {money} {capitalised(verdicts(results))}.")
    if len(comparison.groups) > MONEY_IN_WORDS:
        lines.append(f"The money of the other {len(comparison.groups) - MONEY_IN_WORDS} groups is in the tables.")
    return lines


def alarms(comparison: Comparison) -> list[str]:
    """One line that names the runs with alarms, if there are any; their own pages have the figures."""
    found = [run.label for run in comparison.runs if run.result and alarm_lines(run.result)]
    return [f"{', '.join(found)}: {TOO_GOOD}"] if found else []


def standing(difference: Difference, period: str) -> str:
    """Whether the Sharpe ratio of a period is "higher", "lower", "alike" or "unknown".

    Higher and lower need an interval by days that excludes zero and, with several seeds on both sides, one by seeds
    that does so in the same direction.
    """
    days, seeds = difference.sharpe.get(period), difference.sharpe_by_seeds(period)
    if days is None or days.value is None:
        return "unknown"
    parts: list[ByDays | BySeeds] = [days, *([seeds] if seeds.low is not None else [])]
    if not all(part.told_apart for part in parts):
        return "alike"
    higher = {(part.value or 0.0) > 0.0 for part in parts}
    return "alike" if len(higher) > 1 else "higher" if higher == {True} else "lower"


def sentences(comparison: Comparison) -> list[str]:
    """The lines under the money: each difference in words, and warnings."""
    differences, lines = comparison.differences, list[str]()
    for difference in differences if len(differences) <= IN_WORDS else []:
        for period in PERIODS:
            lines += [text for text in (market_sentence(difference, period), seed_sentence(difference, period)) if text]
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


def market_sentence(difference: Difference, period: str) -> str:
    """The difference of the Sharpe ratios by days."""
    found, ours, theirs = difference.sharpe.get(period), difference.group, difference.against
    words = PERIODS[period]
    if found is None or found.value is None:
        return ""
    on = f"On {found.days:,} {words} days {ours}'s Sharpe ratio is {beside(found)} than {theirs}'s"
    if found.low is None:
        return f"{on}{'' if found.enough_days else ': too few days for an interval'}."
    if found.value == found.low == found.high == 0.0:
        return f"On the {words} days {ours} earned exactly what {theirs} did."
    return f"{on}: {'more than the days alone explain' if found.told_apart else 'the days alone could explain this'}."


def seed_sentence(difference: Difference, period: str) -> str:
    """The difference of the mean Sharpe ratios by seeds, and how many seeds would be needed."""
    found = difference.sharpe_by_seeds(period)
    if found.value is None:
        return ""
    if not found.several:
        if period != "valid":
            return ""  # said once
        return "One side has a single seed, so the effect of the seed is unknown: run seed=1,2,3."
    if found.low is None:
        return ""
    one, other = found.seeds
    rest = "more than the seeds alone explain" if found.told_apart else "the seeds alone could explain this"
    needed = "No reasonable number of seeds" if found.seeds_needed is None else f"{found.needed} seeds on each side"
    return (
        f"Over {one} seeds of {difference.against} and {other} of {difference.group} {difference.group}'s mean on the "
        f"{PERIODS[period]} days is {beside(found)}: {rest}. {needed} would tell a difference of this size from "
        f"none ({POWER})."
    )


def beside(found: Estimate) -> str:
    """A difference in words, its interval in the same direction: "higher by 0.54 [0.10, 0.98]"."""
    value, sign = found.value or 0.0, -1.0 if (found.value or 0.0) < 0.0 else 1.0
    ends = sorted(sign * end for end in (found.low, found.high) if end is not None)
    around = f" {interval(ends[0], ends[1], Unit.RATIO)}" if len(ends) == 2 else ""
    return f"{'lower' if sign < 0.0 else 'higher'} by {abs(value):.2f}{around}"
