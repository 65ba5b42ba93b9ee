"""Opening a run: its folder, with config and manifest before the first step, and its row in the ledger."""

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hftraining.core.endings import in_the_run
from hftraining.core.errors import ConfigError
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.ground import Ground
from hftraining.experiment.inherit import signature_of
from hftraining.experiment.ledger_row import LedgerRow, in_the_ledger, open_ledger
from hftraining.runs.bar_digests import digest_bars, write_digests
from hftraining.runs.code_version import code_patch
from hftraining.runs.folder import CANDIDATES_FOLDER
from hftraining.runs.identity import manifest, new_id
from hftraining.runs.record import RunRecord, read_manifest
from hftraining.training.checkpoint import Checkpoints


@contextmanager
def opened(
    ground: Ground,
    argv: list[str] | None,
    kind: str,
    name: str,
    called: str | None = None,
    part_of: str | None = None,
) -> Iterator[tuple[RunRecord, LedgerRow]]:
    """The folder outputs/kind/name/called of a new run, or that of a resumed one, and its ledger row while it runs.

    called: the date and time unless given. part_of: the uuid of the trial that this run is a fold or seed of.
    """
    config = ground.config
    ledger = open_ledger(config.evidence, _outputs_of(config))  # before there is a folder that it might not count
    if config.evidence.ledger:  # so that the run is resumed and replayed with it from any folder
        config.evidence.ledger = str(ledger.path)
    record = _reopened(ground) if config.resume else _created(ground, ledger.path, argv, kind, name, called)
    with (
        in_the_run(record.folder),
        record,
        in_the_ledger(ledger, record, ground.periods, ground.whole, bool(config.resume), part_of) as row,
    ):
        yield record, row


@contextmanager
def opened_candidate(ground: Ground, folder: Path, method: str) -> Iterator[tuple[RunRecord, LedgerRow]]:
    """The folder of a candidate inside its fine-tune's; without a whole checkpoint the candidate starts over."""
    path = folder / CANDIDATES_FOLDER / method
    step = Checkpoints(path / "checkpoints").newest()
    if step:
        record = RunRecord.reopen(path, step)
    else:
        shutil.rmtree(path, ignore_errors=True)
        delta, signature = signature_of(ground.config, ground.base, method)
        own = {"id": new_id(), "signature": signature, "kind": "finetuned", "name": f"{ground.config.name} {method}"}
        facts, values = read_manifest(folder) | own, dataclasses.asdict(ground.config)
        record = RunRecord.create(folder.parent, folder.name, CANDIDATES_FOLDER, values, delta, facts, called=method)
    ledger = open_ledger(ground.config.evidence, _outputs_of(ground.config))
    with in_the_run(path), record, in_the_ledger(ledger, record, ground.periods, ground.whole, step > 0) as row:
        yield record, row


def _outputs_of(config: ExperimentConfig) -> Path:
    """The outputs folder around a run to resume, outputs/kind/name/called, or that of a new run."""
    around = Path(config.resume).resolve().parents[2:3] if config.resume else [Path(config.output_dir)]
    return next(iter(around), Path(config.output_dir))


def _fingerprints(ground: Ground) -> dict[str, str]:
    """Of the bars that are traded and, for a fine-tune, of those that its features were made of."""
    traded = {"fingerprint": ground.whole.fingerprint()}
    return traded | {"universe": ground.universe.fingerprint()} if ground.base else traded


def _reopened(ground: Ground) -> RunRecord:
    folder = Path(str(ground.config.resume))
    known = read_manifest(folder)["data"]
    for what, found in _fingerprints(ground).items():
        if known.get(what) != found:
            raise ConfigError(
                f"{folder}: the bars are not those that the run began with ({what} {found} where run.json says "
                f"{known.get(what)}): start a new run"
            )
    return RunRecord.reopen(folder, Checkpoints(folder / "checkpoints").newest())


def _created(
    ground: Ground, ledger: Path, argv: list[str] | None, kind: str, name: str, called: str | None
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
    facts["ledger"] = str(ledger)
    if base:
        facts["base"] = {"folder": str(base.folder), "signature": base.signature, "weights": base.weights}
    outputs = Path(config.output_dir)
    record = RunRecord.create(outputs, kind, name, dataclasses.asdict(config), delta, facts, patch[0], called)
    write_digests(digest_bars(bars), record.folder, outputs / ".bars" / f"{prints['fingerprint']}.npz")
    return record
