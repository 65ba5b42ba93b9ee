"""Opening a run: its folder, with config and manifest before the first step, and its row in the ledger."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hftraining.core.endings import in_the_run
from hftraining.core.errors import ConfigError
from hftraining.core.untrusted import refuse_links
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finished import SEALED, is_whole, lost_ledger
from hftraining.experiment.ground import Ground
from hftraining.experiment.inherit import refuse_edited, signature_of
from hftraining.experiment.ledger_row import LedgerRow, in_the_ledger, open_ledger
from hftraining.market.features.lookup import marks_of, other_packages, packages_of
from hftraining.runs.bar_digests import digest_bars, write_digests
from hftraining.runs.code_version import code_patch
from hftraining.runs.folder import CANDIDATES_FOLDER, FOLDS_FOLDER, MEMBERS_FOLDER
from hftraining.runs.identity import manifest, new_id
from hftraining.runs.ledger import Ledger
from hftraining.runs.lock import FolderLock
from hftraining.runs.naming import name_apart
from hftraining.runs.record import RunRecord, read_manifest
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.group import is_launched, launch_id

TORCHRUN = "torchrun"  # in run.json: the id of the torchrun that started the run, which may start it again
REPEATS = "repeats"  # in run.json of a replay: the id of the run that it repeats


@contextmanager
def opened(
    ground: Ground,
    argv: list[str] | None,
    kind: str,
    name: str,
    called: str | None = None,
    part_of: str | None = None,
    repeats: str | None = None,
) -> Iterator[tuple[RunRecord, LedgerRow]]:
    """The folder outputs/kind/name/called of a new run, or that of a resumed one, and its ledger row while it runs.

    called: the date and time unless given, and what differs where the folder holds other runs: see name_apart. part_of:
    the uuid of the trial that this run is a fold or seed of. repeats: the id of the run that a replay repeats.
    """
    config = ground.config
    if config.resume and (lost := lost_ledger(config.evidence)):
        raise ConfigError(
            f"{config.resume}: the ledger of its config.yaml, evidence.ledger={lost}, does not exist: put it back, or "
            "take it out of config.yaml, and your own ledger counts the run"
        )
    ledger = open_ledger(config.evidence, _outputs_of(config))  # before there is a folder that it might not count
    if config.evidence.ledger:  # so that the run is resumed and replayed with it from any folder
        config.evidence.ledger = str(ledger.path)
    if config.resume:
        record = _reopened(ground, Path(config.resume), ledger)
    else:
        record = _created(ground, ledger.path, argv, kind, name, called, repeats)
    with (
        in_the_run(record.folder),
        record,
        in_the_ledger(ledger, record, ground.periods, ground.whole, bool(config.resume), part_of) as row,
    ):
        yield record, row


@contextmanager
def opened_candidate(ground: Ground, folder: Path, method: str) -> Iterator[tuple[RunRecord, LedgerRow]]:
    """The folder of a candidate inside its fine-tune's, which a killed fine-tune may have begun."""
    path = folder / CANDIDATES_FOLDER / method
    ledger = open_ledger(ground.config.evidence, _outputs_of(ground.config))
    is_begun = path.is_dir()
    if is_begun:
        record = _reopened(ground, path, ledger, method)
    else:
        delta, signature = signature_of(ground.config, ground.base, method)
        own = {"id": new_id(), "signature": signature, "kind": "finetuned", "name": f"{ground.config.name} {method}"}
        facts, values = read_manifest(folder) | own, dataclasses.asdict(ground.config)
        record = RunRecord.create(folder.parent, folder.name, CANDIDATES_FOLDER, values, delta, facts, called=method)
    with in_the_run(path), record, in_the_ledger(ledger, record, ground.periods, ground.whole, is_begun) as row:
        yield record, row


@contextmanager
def opened_fold(ground: Ground, folder: Path, number: int) -> Iterator[tuple[RunRecord, LedgerRow]]:
    """The folder of a fold inside its walk-forward's, which a killed one may have begun.

    Its row in the ledger is a part of the run's: the inner days, which choose its step, are what it was tried on.
    """
    whole, called = read_manifest(folder), f"{number:02d}"
    path, periods = folder / FOLDS_FOLDER / called, {"valid": ground.periods["valid"]}
    ledger = open_ledger(ground.config.evidence, _outputs_of(ground.config))
    is_begun = path.is_dir()
    if is_begun:
        record = _reopened(ground, path, ledger, prints={"fingerprint": whole["data"]["fingerprint"]})
    else:
        delta, signature = signature_of(ground.config)
        own = {"id": new_id(), "signature": signature, "kind": whole["kind"], "name": f"{whole['name']} fold {called}"}
        facts = whole | own | {SEALED: True}
        values = dataclasses.asdict(ground.config)
        record = RunRecord.create(folder.parent, folder.name, FOLDS_FOLDER, values, delta, facts, called=called)
    part_of = str(whole["id"])
    with record, in_the_ledger(ledger, record, periods, ground.whole, is_begun, part_of) as row:
        yield record, row


@contextmanager
def opened_member(ground: Ground, record: RunRecord) -> Iterator[tuple[RunRecord, LedgerRow]]:
    """The folder of a member inside that of its run, which a killed run may have begun: a run of its seed, sealed.

    In the ledger it is a part of the one trial that the whole run is.
    """
    called = f"seed{ground.config.seed}"
    path = record.folder / MEMBERS_FOLDER / called
    ledger = open_ledger(ground.config.evidence, _outputs_of(ground.config))
    is_begun = path.is_dir()
    if is_begun:
        member = _reopened(ground, path, ledger)
    else:
        delta, signature = signature_of(ground.config)
        whole, values = record.manifest, dataclasses.asdict(ground.config)
        name = f"{ground.config.name} {called}"
        own = {"id": new_id(), "signature": signature, "name": name, "seed": ground.config.seed, SEALED: True}
        facts = whole | own
        member = RunRecord.create(
            record.folder.parent, record.folder.name, MEMBERS_FOLDER, values, delta, facts, called=called
        )
    part_of = record.manifest.get("id")
    with (
        in_the_run(path),
        member,
        in_the_ledger(ledger, member, ground.periods, ground.whole, is_begun, part_of) as row,
    ):
        yield member, row


def _outputs_of(config: ExperimentConfig) -> Path:
    """The outputs folder around a run to resume, outputs/kind/name/called, or that of a new run."""
    around = Path(config.resume).resolve().parents[2:3] if config.resume else [Path(config.output_dir)]
    return next(iter(around), Path(config.output_dir))


def _fingerprints(ground: Ground) -> dict[str, str]:
    """Of the bars that are traded and, for a fine-tune, of those that its features were made of."""
    traded = {"fingerprint": ground.whole.fingerprint()}
    return traded | {"universe": ground.universe.fingerprint()} if ground.base else traded


def _reopened(
    ground: Ground,
    folder: Path,
    ledger: Ledger,
    candidate: str | None = None,
    prints: dict[str, str] | None = None,
) -> RunRecord:
    """The record of a run that has begun, whatever of it is there: only this process may write into its folder.

    prints: of the bars that it began with; those of the ground unless given.
    """
    refuse_links(folder)  # before anything is written or removed: a link would lead out of it
    lock = FolderLock(folder)
    try:
        if is_whole(folder, ledger):  # by another process, since this one has looked
            raise ConfigError(f"{folder} is finished: there is nothing to resume")
        facts = read_manifest(folder)
        for what, found in (prints or _fingerprints(ground)).items():
            if (known := facts["data"].get(what)) != found:
                raise ConfigError(
                    f"{folder}: the bars are not those that the run began with ({what} {found} where run.json says "
                    f"{known}): start a new run"
                )
        if apart := other_packages(ground.config.features.columns, facts):
            raise ConfigError(
                f"{folder}: its features come from another version of their package ({', '.join(apart)}): install the "
                "one that it began with, or start a new run"
            )
        refuse_edited(folder, facts, ground.config, ground.base, candidate)
        return RunRecord.reopen(folder, Checkpoints(folder / "checkpoints").newest(), lock)
    except BaseException:
        lock.release()
        raise


def _created(
    ground: Ground,
    ledger: Path,
    argv: list[str] | None,
    kind: str,
    name: str,
    called: str | None,
    repeats: str | None,
) -> RunRecord:
    config, base, bars = ground.config, ground.base, ground.whole
    prints = _fingerprints(ground)
    delta, signature = signature_of(config, base)
    patch = code_patch()
    data = {
        **prints,
        "source": bars.source,
        "symbols": list(bars.symbols_S),
        "first": str(bars.sessions_T[0]),
        "last": str(bars.sessions_T[-1]),
        "snapshot": bars.snapshot,
    }
    threads = torch.get_num_threads()
    facts = manifest(signature=signature, seed=config.seed, threads=threads, data=data, argv=argv, patch=patch)
    facts["versions"] |= packages_of(config.features.columns)
    facts["marks"] = marks_of(config.features.columns)
    facts |= {"ledger": str(ledger), SEALED: ground.sealed}
    if base:
        facts["base"] = {"folder": str(base.folder), "signature": base.signature, "weights": base.weights}
    if repeats:
        facts[REPEATS] = repeats
    if is_launched():
        facts[TORCHRUN] = launch_id()
    outputs = Path(config.output_dir)
    called = called or name_apart(outputs / kind / name, signature, delta)

    def write_bars(folder: Path) -> None:
        write_digests(digest_bars(bars), folder, outputs / ".bars" / f"{prints['fingerprint']}.npz")

    values = dataclasses.asdict(config)
    return RunRecord.create(outputs, kind, name, values, delta, facts, patch[0], called, write_bars)
