"""Serving a study: claim a trial, run it, store its outcome, until the study is full.

The caller says what a trial does. worker.py stands apart, since importing its trainings takes seconds.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import Trial

from hftraining.core.errors import Interrupted, Pruned
from hftraining.core.secret import masked
from hftraining.sweep.space import Param, Value
from hftraining.sweep.study import Study

FULL, FAILING, INTERRUPTED = "full", "failing", "interrupted"
Report = Callable[[int, Mapping[str, float]], None]  # called with the step of a report and the objectives to prune on
Run = Callable[[int, Mapping[str, Value], Report, dict[str, Any]], dict[str, float]]  # see TrialRunner.run


def serve(study: Study, space: Sequence[Param], fixed: Mapping[str, Value], run: Run) -> str:
    """Run trials until none is left ("full"), too many failed ("failing") or a signal came ("interrupted").

    Raises OSError, with the trial given back: a full disk, say, is not the fault of its configuration.
    """
    search = study.search
    with study.working():
        while (trial := study.claim(search.n_trials)) is not None:
            try:
                with study.alive(trial):
                    _run_one(study, trial, space, fixed, run)
            except (Interrupted, KeyboardInterrupt):
                study.give_back(trial)
                return INTERRUPTED
            except OSError:  # the disk, which would fail the next trial, too
                study.give_back(trial)
                raise
            if len(study.failures()) > search.failures_allowed:
                return FAILING
    return FULL


def _run_one(study: Study, trial: Trial, space: Sequence[Param], fixed: Mapping[str, Value], run: Run) -> None:
    facts: dict[str, Any] = {}

    def watch(step: int, values: Mapping[str, float]) -> None:
        study.report(trial, step, values)
        if study.should_prune(trial):
            reached = " and ".join(f"{name} of {value:.4f}" for name, value in values.items())
            raise Pruned(f"{reached} at report {step}: {study.search.pruner} pruner")

    try:
        point = study.suggest(trial, space, fixed)
        metrics = run(trial.number, point, watch, facts)
    except Pruned as end:
        study.prune(trial, str(end), facts)
        _say(trial, f"pruned after {facts.get('steps', 0)} steps: {end}")
    except (Interrupted, KeyboardInterrupt, OSError):
        raise
    except Exception as error:
        # The error is stored with its trial; other trials may still succeed.
        reason = masked(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", users=True)
        study.fail(trial, reason, traceback.format_exc(), facts)
        _say(trial, f"FAILED: {reason}")
    else:
        study.complete(trial, metrics, facts)
        _say(trial, "  ".join(f"{name} {metrics[name]:.4f}" for name in study.search.objectives))


def _say(trial: Trial, text: str) -> None:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in trial.params.items()}
    point = " ".join(f"{name}={value}" for name, value in shown.items())
    print(f"trial {trial.number}: {point}  ->  {text}", flush=True)
