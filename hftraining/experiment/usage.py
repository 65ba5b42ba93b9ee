"""What `python train.py --help` says: examples, the options of each group, every field with its value and meaning."""

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from hftraining.experiment.config import CONF, ExperimentConfig

HEADER = """\
hftraining: transformers that forecast stocks, trained with their profit tracked as carefully as their loss.

python train.py                                  the packaged sample, offline
python train.py model=large stocks=tech10        ten technology stocks through yfinance
python train.py stocks=folder stocks.path=BARS   your own csv or parquet files
python train.py resume=outputs/base/...          resume an interrupted run, bit-exact
python train.py -m model=tiny,small seed=1,2,3   several runs, and a table of them
python train.py -m search=profit                 hyperparameters by Optuna: loss down, Sharpe up
python train.py +best=outputs/sweeps/.../knee.yaml   what a sweep found, trained again
python train.py init_from=outputs/base/... stocks.symbols=[AAPL]   fine-tune, and see whether it is worth it
"""
FOOTER = "--hydra-help lists the options of Hydra, among them --cfg job (show the config) and -sc (tab completion)."
_COMMENTED_FIELD = re.compile(r"^    (\w+): .*?  # (.+)$", re.MULTILINE)
_PLAIN_TEXT = re.compile(r"[\w/$][^:#,]*")  # that YAML reads as it stands, too
_COLUMN = 32  # where the meanings begin


def usage(tree: type[ExperimentConfig], values: Mapping[str, Any] | None = None) -> str:
    """The text. values: nested values of all fields of the tree, as composed; without them the defaults."""
    shown = dataclasses.asdict(tree()) if values is None else values
    groups = "\n".join(f"{name}: {', '.join(options)}" for name, options in _groups())
    return "\n".join(
        [HEADER, "Groups (group=option):", groups, "", "Fields (field=value):", *_fields(tree, shown), "", FOOTER]
    )


def _groups() -> Iterator[tuple[str, list[str]]]:
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        if options := sorted(path.stem for path in folder.glob("*.yaml")):
            yield folder.name, options


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
        meaning = meanings.get(entry.name)
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
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_text(item)}' for name, item in value.items())}}}"
    if isinstance(value, str) and not _PLAIN_TEXT.fullmatch(value):
        return json.dumps(value)
    return str(value)
