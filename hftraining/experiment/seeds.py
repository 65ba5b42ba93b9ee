"""One run of several seeds: a model of each, trained one after another in members/, and their mean as the run's model.

Every member is a run of its seed, as `seed=N` would train it, with folder, checkpoints, probes and report of its own.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from hftraining.experiment.conclude import conclude
from hftraining.experiment.finished import finished_result
from hftraining.experiment.fit import Fitted, fit
from hftraining.experiment.ground import Ground, untrained
from hftraining.experiment.members import Member
from hftraining.experiment.opening import opened_member
from hftraining.experiment.probe import probes_of
from hftraining.model.base import Forecaster
from hftraining.model.ensemble import Ensemble
from hftraining.runs.folder import MEMBERS_FOLDER
from hftraining.runs.record import CLOCKS, RunRecord, read_metrics
from hftraining.training.trainer import Progress


def member_ground(ground: Ground, number: int) -> Ground:
    """The ground of one member, its test days sealed: that of a run of its seed, on the same days and features."""
    config = ground.config
    training = dataclasses.replace(config.training, seeds=1)
    config = dataclasses.replace(config, seed=config.seed + number, training=training, resume=None)
    own = ground.forecaster
    forecaster = untrained(config, ground.features, ground.splits, own.relative, own.symbols)
    return dataclasses.replace(
        ground,
        config=config,
        forecaster=dataclasses.replace(forecaster, days=own.days),
        lesson=dataclasses.replace(ground.lesson, seed=config.seed),
        periods={name: period for name, period in ground.periods.items() if name != "test"},
        baselines={},
        sealed=True,
    )


def fit_members(ground: Ground, record: RunRecord, opening: tuple[str, ...]) -> Fitted[Ensemble]:
    """Train every member, resume it, or read it back if it is finished; the equal-weight ensemble of them.

    The steps of the record are the means of the members' at each step that all of them have taken; their clocks, sums.
    opening: lines for the console. Raises as fit.
    """
    seeds = ground.config.training.seeds
    members, parts = list[Member](), list[Fitted[Forecaster]]()
    for number in range(seeds):
        own = member_ground(ground, number)
        place = record.folder / MEMBERS_FOLDER / f"seed{own.config.seed}"
        words = f"member {number + 1} of {seeds}: seed {own.config.seed}"
        parts.append(_fit_member(own, record, place, (*(opening if number == 0 else ()), words)))
        members.append(Member(place.name, parts[-1].forecaster, 1.0 / seeds, str(place.relative_to(record.folder))))
    history = means_of([read_metrics(record.folder / member.folder) for member in members])
    for step, values, clocks in history:
        record.log(step, values, clocks)
    progress = Progress(
        step=sum(part.progress.step for part in parts), skipped_steps=sum(part.progress.skipped_steps for part in parts)
    )
    ensemble = Ensemble.of([member.predictor for member in members])
    return Fitted(ensemble, progress, *probes_of([values for _, values, _ in history]), members=tuple(members))


def _fit_member(own: Ground, record: RunRecord, place: Path, opening: tuple[str, ...]) -> Fitted[Forecaster]:
    if known := finished_result(place, own.config.evidence):
        forecaster = Forecaster.load(place / "model", own.config.training.device)
        progress = Progress(known.steps or 0, known.best_step, None, known.skipped_steps)
        return Fitted(forecaster, progress, *probes_of(read_metrics(place)))
    with opened_member(own, record) as (member, row):
        fitted = fit(own, member, opening=opening)
        conclude(own, fitted, member, row)
    return fitted


def means_of(
    histories: Sequence[Sequence[dict[str, float]]],
) -> list[tuple[int, dict[str, float], dict[str, float]]]:
    """Step, values and clocks at each step that all histories have: the means of what all logged, and summed clocks."""
    found = []
    by_step = [{int(row["step"]): row for row in history} for history in histories]
    for step in sorted(set.intersection(*(set(rows) for rows in by_step))):
        rows = [one[step] for one in by_step]
        tags = set.intersection(*(set(row) for row in rows)) - {"step"}
        means = {tag: fmean(row[tag] for row in rows) for tag in sorted(tags - set(CLOCKS))}
        clocks = {name: math.fsum(row.get(name, 0.0) for row in rows) for name in CLOCKS}
        found.append((step, means, clocks))
    return found
