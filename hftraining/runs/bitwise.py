"""Two run folders that should hold the same bits: everything learned, every logged step, every day of the account."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hftraining.core.errors import UserError
from hftraining.core.tensor_file import shapes_of
from hftraining.core.untrusted import MB, digest, is_there, refuse_links, shown
from hftraining.core.values import canonical
from hftraining.runs.frames import read_table
from hftraining.runs.record import CLOCKS, read_metrics

NOT_LEARNED = "config.json"  # of model/: describes the model and names its days
MODELS = ("model/model.safetensors", "model/members")  # of a model, and of an ensemble
NAMED = 3  # tensors in a line
FILE_MOST = 256 * MB  # of a file that holds no tensors, such as trees


@dataclass(frozen=True)
class Bits:
    """What was compared, and what differs; a text is empty where nothing differs.

    tensors: how many the model's safetensors files hold. weights: also about its other files, such as trees.
    """

    tensors: int
    steps: int
    days: int
    weights: str
    metrics: str
    equity: str
    first_step: int | None  # the first logged step that differs
    trained_alike: bool  # whether every train/ figure and weight is equal, so that only scoring can differ

    @property
    def equal(self) -> bool:
        """Whether everything is equal."""
        return not (self.weights or self.metrics or self.equity)

    def lines(self) -> list[str]:
        """One line each for weights, logged steps and account."""
        return [
            f"weights: {self.weights or f'{self.tensors} tensors, equal to the bit'}",
            f"metrics.jsonl: {self.metrics or f'{self.steps} logged steps, equal to the bit'}",
            f"equity.parquet: {self.equity or f'{self.days:,} days, equal to the bit'}",
        ]


def compare_bits(first: Path, second: Path) -> Bits:
    """Compare the models, metrics.jsonl without its clock, and equity.parquet of two finished runs.

    Of model/ every file but config.json counts: safetensors tensor by tensor, other files whole. NaN equals NaN.
    Raises UserError naming a file that one of them lacks.
    """
    for folder in (first, second):
        for names in (MODELS, ("metrics.jsonl",), ("equity.parquet",)):
            if not any(is_there(folder / name) for name in names):
                name = names[0]
                raise UserError(f"{folder} has no {name}: the run is not finished, or the file was removed")
    weights, tensors = _model(first / "model", second / "model")
    metrics, first_step, steps, losses_alike = _metrics(first, second)
    equity, days = _equity(first, second)
    return Bits(tensors, steps, days, weights, metrics, equity, first_step, losses_alike and not weights)


def _model(first: Path, second: Path) -> tuple[str, int]:
    """The text, and how many tensors the first model has."""
    refuse_links(first)
    refuse_links(second)
    names = [_files(folder) for folder in (first, second)]
    differing, tensors = [f"{shown(name)} is in one of them only" for name in sorted(names[0] ^ names[1])], 0
    for name in sorted(names[0] & names[1]):
        ours, theirs = first / name, second / name
        if ours.suffix == ".safetensors":
            text, count = _tensors(ours, theirs)
            tensors += count
        else:
            text = f"{shown(name)} differs" if digest(ours, FILE_MOST) != digest(theirs, FILE_MOST) else ""
        differing += [text] if text else []
    return "; ".join(differing), tensors


def _files(folder: Path) -> set[str]:
    """The files of a model, or of all members of an ensemble, by their path in its folder."""
    found = [path for path in folder.rglob("*") if not path.is_dir() and path.name != NOT_LEARNED]
    return {str(path.relative_to(folder)) for path in found}


def _tensors(first: Path, second: Path) -> tuple[str, int]:
    ours, theirs = (_read_tensors(path) for path in (first, second))
    if lone := sorted(ours.keys() ^ theirs.keys()):
        return f"{len(lone)} tensors are in one of them only, such as {shown(lone[0])}", len(ours)
    pairs = {name: (ours[name], theirs[name]) for name in ours}
    apart = [n for n, (a, b) in pairs.items() if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes())]
    if not apart:
        return "", len(ours)
    alike = [(a.astype(float), b.astype(float)) for a, b in (pairs[name] for name in apart) if a.shape == b.shape]
    largest = max((float(np.abs(a - b).max()) for a, b in alike), default=np.nan)
    named = ", ".join(apart[:NAMED]) + (" and so on" if len(apart) > NAMED else "")
    return f"{len(apart)} of {len(ours)} tensors differ, by up to {largest:.3g} ({shown(named, 200)})", len(ours)


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    shapes_of(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({shown(error, 120)})") from None


def _metrics(first: Path, second: Path) -> tuple[str, int | None, int, bool]:
    """The text, the first step that differs, the number of steps, and whether all train/ figures are equal."""
    ours, theirs = ({int(row["step"]): row for row in read_metrics(folder)} for folder in (first, second))
    text, first_step, alike = "", None, True
    for step in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(step), theirs.get(step)
        if one is None or other is None:
            apart = ["logged in one of them only"]
        else:
            tags = sorted((one.keys() | other.keys()) - set(CLOCKS))
            apart = [tag for tag in tags if canonical(one.get(tag)) != canonical(other.get(tag))]
        alike = alike and not any(tag.startswith("train/") for tag in apart)
        if apart and first_step is None:
            first_step = step
            change = f" {one.get(apart[0])} became {other.get(apart[0])}" if one and other else ""
            text = f"first differs at step {step}: {apart[0]}{change}"
            text += f" and {len(apart) - 1} more figures" if len(apart) > 1 else ""
    return text, first_step, len(ours), alike


def _read_equity(folder: Path) -> pd.DataFrame:
    found = read_table(folder, "equity.parquet")
    if found is None:
        raise UserError(f"{folder} has no equity.parquet: the run is not finished, or the file was removed")
    return found


def _equity(first: Path, second: Path) -> tuple[str, int]:
    ours, theirs = (_read_equity(folder) for folder in (first, second))
    if list(ours.columns) != list(theirs.columns) or len(ours) != len(theirs):
        return f"{len(ours):,} and {len(theirs):,} rows, or other columns", len(ours)
    for column in ours.columns:
        same = (ours[column] == theirs[column]) | (ours[column].isna() & theirs[column].isna())
        if not same.all():
            row = ours[~same].iloc[0]
            where = f"{row.get('window')} days from {str(row.get('date'))[:10]} on"
            return f"{column} differs on {int((~same).sum()):,} of {len(ours):,} days, {where}", len(ours)
    return "", len(ours)
