"""The text of `python train.py --help`: examples, the options of each group, every field with value and meaning."""

import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.experiment.config import CONF, ExperimentConfig

HEADER = """\
hftraining: transformers that forecast stocks, trained with their profit tracked as carefully as their loss.

python train.py                                  the packaged sample, offline
python train.py model=large stocks=tech10        ten technology stocks through yfinance
python train.py stocks=folder stocks.path=BARS   your own csv or parquet files
python train.py resume=outputs/base/...          resume an interrupted run, bit-exact
python train.py -m model=tiny,small seed=1,2,3   several runs, and a table of them
python train.py -m search=profit                 hyperparameters by Optuna: loss down, Sharpe up
python train.py +best=outputs/sweeps/.../knee.yaml   the best configuration of a sweep, trained again
python train.py walk_forward=yearly              trained anew each year, the forecasts stitched out of sample
python train.py init_from=outputs/base/... stocks.symbols=[AAPL]   fine-tune, and see whether it is worth it
"""
FOOTER = "--hydra-help lists the options of Hydra, among them --cfg job (show the config) and -sc (tab completion)."
_COMMENTED_FIELD = re.compile(r"^    (\w+): .*?  # (.+)$", re.MULTILINE)
_NAME = "what this choice is called"
_COLUMN = 32  # where the meanings begin


def usage(tree: type[ExperimentConfig], values: Mapping[str, Any] | None = None) -> str:
    """The text. values: nested values of all fields of the tree, as composed; the defaults unless given."""
    shown = dataclasses.asdict(tree()) if values is None else values
    options = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in sorted(CONF.iterdir())}
    groups = "\n".join(f"{name}: {', '.join(found)}" for name, found in options.items() if found)
    return "\n".join(
        [HEADER, "Groups (group=option):", groups, "", "Fields (field=value):", *_fields(tree, shown), "", FOOTER]
    )


def _fields(config: type, values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    meanings = _meanings(config)
    types = typing.get_type_hints(config)
    for entry in dataclasses.fields(config):
        value, line = values.get(entry.name), f"{indent}{entry.name}:"
        group = next(
            (part for part in (types[entry.name], *typing.get_args(types[entry.name])) if _is_group(part)), None
        )
        if group and isinstance(value, Mapping):
            yield line
            yield from _fields(group, value, indent + "  ")
            continue
        line = f"{line} {_text(value)}"
        meaning = meanings.get(entry.name) or (_NAME if entry.name == "name" else None)
        yield f"{line:<{_COLUMN}}  # {meaning}" if meaning else line


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _meanings(config: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, and of those that it extends."""
    meanings: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        if _is_group(kind):
            meanings |= dict(_COMMENTED_FIELD.findall(inspect.getsource(kind)))
    return meanings


def _text(value: Any) -> str:
    """A value as YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()
