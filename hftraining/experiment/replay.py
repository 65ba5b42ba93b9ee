"""Repeat a run from its folder: equal to the bit, or the first step that differs and why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.files import write_json_atomically
from hftraining.core.untrusted import MB, read_bytes
from hftraining.core.values import flatten, printable
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.config import ExperimentConfig, load_config
from hftraining.experiment.finetune import run_finetune
from hftraining.experiment.finished import lost_ledger
from hftraining.experiment.inherit import refuse_edited
from hftraining.experiment.opening import REPEATS
from hftraining.experiment.run import run_experiment
from hftraining.market.config import MarketDataError
from hftraining.market.features.lookup import other_marks, packages_of
from hftraining.market.prices import load_bars
from hftraining.market.snapshots import with_snapshot
from hftraining.runs.bar_digests import data_delta, digest_bars, read_digests
from hftraining.runs.bitwise import Bits, compare_bits
from hftraining.runs.code_version import code_version, source_digest
from hftraining.runs.environment import environment
from hftraining.runs.folder import CANDIDATES_FOLDER, FOLDS_FOLDER, RunFolder, is_member, read_run, runs_in
from hftraining.runs.lock import is_in_use
from hftraining.runs.record import read_manifest

REPLAY_FILE = "replay.json"  # of a repetition: what the comparison has found
LOG_MOST = 512 * MB  # of train.log
LINES_SHOWN = 10  # of changed bars
LIKELIEST = ("code", "threads", "machine", "library")  # causes of a difference, the likeliest first
NOTHING_KNOWN = (
    "nothing recorded explains it: code, bars, threads, versions and CPU are those of run.json; a file of the run may "
    "have been edited, or the machine differs in something that is not recorded"
)


class ReplayError(UserError):
    """The run cannot be repeated: what, where, what to do, in one line."""


@dataclass(frozen=True)
class Cause:
    """Something that has changed since the run. kind: one of LIKELIEST."""

    kind: str
    text: str


@dataclass(frozen=True)
class Replay:
    """A run and its repetition. causes: known beforehand. likely: explanations of a difference, the likeliest first."""

    run: Path
    folder: Path
    bits: Bits
    causes: list[Cause]
    likely: list[str] = field(default_factory=list)

    def as_object(self) -> dict[str, Any]:
        """For --json."""
        return {
            "equal": self.bits.equal,
            "run": str(self.run),
            "replay": str(self.folder),
            **{name: getattr(self.bits, name) or None for name in ("weights", "metrics", "equity")},
            "first_step": self.bits.first_step,
            "causes": [vars(cause) for cause in self.causes],
            "likely": self.likely,
        }


def replay(folder: Path, outputs: Path | None = None, say: Callable[[str], None] = print) -> Replay:
    """Train again with the run's config, bars, seed and threads, in a new folder, and compare.

    outputs: the folder for the new run, whose ledger counts it; by default that of the old run. Known differences are
    printed before training begins. Raises ReplayError if they make it pointless: the bars changed or cannot be loaded,
    or the run never finished.
    """
    if folder.resolve().parent.name == FOLDS_FOLDER:
        raise ReplayError(
            f"{folder} is a fold of a walk-forward: replay the walk-forward, {folder.resolve().parents[1]}"
        )
    run = finished_run(folder)
    if folder.resolve().parent.name == CANDIDATES_FOLDER:
        raise ReplayError(
            f"{folder} is a candidate of a fine-tune: replay the fine-tune, {folder.resolve().parents[1]}"
        )
    if is_member(folder):
        raise ReplayError(f"{folder} is a member of an ensemble: replay the whole of it, {folder.resolve().parents[1]}")
    config = load_config(folder / "config.yaml")
    if lost := lost_ledger(config.evidence):
        say(f"its ledger, {printable(lost)}, does not exist: your own ledger counts this repetition")
        config.evidence.ledger = None
    config.resume, config.output_dir = None, str(outputs or run.outputs or "outputs")
    threads = config.training.threads or run.manifest.get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)
    causes = known_causes(run, config)
    refuse_edited_run(run, config, causes)
    for cause in causes:
        say(f"{cause.kind}: {cause.text}")
    bars = the_same_bars(run, config, code_differs=any(cause.kind == "code" for cause in causes))
    argv = ["python", "-m", "hftraining", "replay", str(folder)]
    kind, name = run.manifest["kind"], run.manifest["name"]
    repeats = identity_of(run)
    if begun := killed_replay(Path(config.output_dir) / kind / name, repeats):
        say(f"going on with {begun}, a repetition of this run that was killed")
        config.resume = str(begun)
    if config.init_from:
        again = run_finetune(config, argv, repeats)
    else:
        sealed = run.result is not None and run.result.test is None  # a trial of a sweep
        again = run_experiment(config, argv, bars, kind=kind, name=name, sealed=sealed, repeats=repeats)
    found = judged(run, again.folder, causes)
    write_json_atomically(again.folder / REPLAY_FILE, found.as_object())
    return found


def identity_of(run: RunFolder) -> str:
    """By what a repetition names its run: the id or, in earlier versions, signature and time."""
    facts = run.manifest
    return str(facts.get("id") or f"{facts.get('signature')} {facts.get('started')}")


def killed_replay(place: Path, repeats: str) -> Path | None:
    """The newest repetition of a run by the code of today that was not compared, and that no process is at, if any."""
    for folder in reversed(runs_in(place)):
        facts = read_manifest(folder)
        is_ours = facts.get(REPEATS) == repeats and facts["code"]["digest"] == source_digest()
        if is_ours and not (folder / REPLAY_FILE).is_file() and not is_in_use(folder):
            return folder
    return None


def refuse_edited_run(run: RunFolder, config: ExperimentConfig, causes: list[Cause]) -> None:
    """Raise ConfigError where config.yaml is not that of the signature; other code may have had other defaults."""
    if not any(cause.kind == "code" for cause in causes):
        base = BaseRun.open(config.init_from, config.training.device) if config.init_from else None
        refuse_edited(run.path, run.manifest, config, base)


def judged(run: RunFolder, again: Path, causes: list[Cause]) -> Replay:
    """Compare a run with its repetition, and name the likely cause of a difference."""
    bits = compare_bits(run.path, again)
    return Replay(run.path, again, bits, causes, [] if bits.equal else likely_causes(run, bits, causes))


def finished_run(folder: Path) -> RunFolder:
    """The run of a folder. Raises ReplayError if it never finished."""
    run = read_run(folder)
    if run.judged:
        raise ReplayError(f"{folder} is {run.judged}, not a run that was trained: give the folder of a training")
    if not run.result:
        raise ReplayError(f"{folder} is not finished, so there is nothing to compare with: resume it first")
    return run


def known_causes(run: RunFolder, config: ExperimentConfig) -> list[Cause]:
    """Code, threads, libraries and machine, where they are not those of run.json."""
    causes = []
    then, now = run.code, code_version()
    if then.get("digest") != now["digest"]:
        causes.append(Cause("code", f"{_code(then)} then, {_code(now)} now; --from-commit runs the recorded one"))
    recorded = run.manifest.get("threads")
    if config.training.threads and recorded != config.training.threads:
        causes.append(
            Cause("threads", f"run.json says {_text(recorded)}, but its config sets {config.training.threads}")
        )
    here = environment()
    here["versions"] |= packages_of(config.features.columns)
    facts = {key: run.manifest.get(key) for key in ("python", "platform", "cpu", "numerics", "versions")}
    ours, theirs = flatten({key: here[key] for key in facts}), flatten(facts)
    for name, value in theirs.items():
        if value == ours.get(name) or value is None:
            continue
        kind = "library" if name.startswith("versions.") or name in ("python", "numerics.mkl") else "machine"
        if name == "numerics.threads":
            kind = "threads"
        causes.append(
            Cause(kind, f"{_text(name.removeprefix('versions.'))} {_text(value)} then, {_text(ours.get(name))} now")
        )
    causes += [Cause("library", text) for text in other_marks(config.features.columns, run.manifest)]
    return causes


def the_same_bars(run: RunFolder, config: ExperimentConfig, *, code_differs: bool) -> Bars:
    """The bars of the run, from the snapshot that it names. Raises ReplayError if they are missing or changed."""
    recorded, stocks = run.manifest.get("data") or {}, config.stocks
    try:
        if snapshot := recorded.get("snapshot"):
            advice = "bring it back there; Yahoo's bars of today are other bars"
            stocks = with_snapshot(stocks, snapshot, run.outputs, advice)
        bars = load_bars(stocks)
    except MarketDataError as error:
        raise ReplayError(f"the bars of {run.path} cannot be loaded: {error}") from error
    if bars.fingerprint() != recorded.get("fingerprint"):
        raise ReplayError(_changed_bars(run, bars, code_differs))
    return bars


def likely_causes(run: RunFolder, bits: Bits, causes: list[Cause]) -> list[str]:
    """Explanations of a difference, the likeliest first."""
    likely = [f"{c.kind}: {c.text}" for c in sorted(causes, key=lambda cause: LIKELIEST.index(cause.kind))]
    if bits.trained_alike:
        likely.append("training was equal to the bit: the scoring or the trading differs")
    if bits.weights and not bits.metrics:
        likely.append("the weights differ, every logged step is equal: was model.safetensors changed after the run?")
    log = run.path / "train.log"
    if log.is_file() and b"resumed from step" in read_bytes(log, LOG_MOST):
        likely.append("the run was interrupted and resumed: run.json names the code that it began with")
    return likely or [NOTHING_KNOWN]


def _changed_bars(run: RunFolder, bars: Bars, code_differs: bool) -> str:
    known = read_digests(run.path)
    text = f"data: the bars are not those that {run.path} was trained on"
    if known is None:
        text += "; without its bars.npz the changed days are unknown"
    elif lines := data_delta(known, digest_bars(bars)).lines():
        shown = [line.replace("the first", "the run").replace("the second", "the data of today") for line in lines]
        more = f" and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else ""
        text += f": {'; '.join(shown[:LINES_SHOWN])}{more}"
    else:
        text += ", by the fingerprint in run.json, though every bar equals bars.npz: was run.json edited?"
    if code_differs:
        text += "; the code that prepares them differs too (--from-commit)"
    return f"{text}; put the old data back to replay it"


def _code(code: dict[str, Any]) -> str:
    if not code.get("digest"):
        return "sources not recorded"
    commit = f"commit {printable(code['commit'])[:12]}" if code.get("commit") else "no commit"
    return f"sources {printable(code['digest'])} ({commit}{', uncommitted changes' if code.get('dirty') else ''})"


def _text(value: Any) -> str:
    return printable(" ".join(map(str, value)) if isinstance(value, list) else value)
