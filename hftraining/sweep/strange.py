"""A study and its folder as data: a stranger may have written them, or have made a folder where ours should be."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from hftraining.core.errors import ConfigError
from hftraining.core.untrusted import refuse_links, shown
from hftraining.runs.manifest import NAME


def refuse_foreign_folder(folder: Path) -> None:
    """Raise ConfigError for a folder in the shared folder of temporary files that others could write into."""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{folder} is not a folder of yours alone: remove it, or set TMPDIR to a folder of your own")


def refuse_links_in(folder: Path) -> None:
    """Raise UserError for a link, a pipe or a device in the folder of a sweep or in its best/."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.name == "best":
            refuse_links(Path(entry.path))
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ConfigError(f"{shown(entry.path, 300)} is neither a file nor a folder: remove it")


def refuse_strange_study(study: optuna.Study, name: str) -> None:
    """Raise ConfigError for a study whose attributes are not those that we write. name: of its storage."""
    definition = study.user_attrs.get("definition")
    if definition is not None:
        _refuse_unless(_is_definition(definition), name, "its definition")
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        facts, owner, reports = (attributes.get(key, {}) for key in ("facts", "owner", "reports"))
        place = f"trial {trial.number}"
        _refuse_unless(all(isinstance(part, dict) for part in (facts, owner, reports)), name, place)
        folders = facts.get("folders", [])
        _refuse_unless(
            isinstance(folders, list) and all(isinstance(f, str) and NAME.match(f) and ".." not in f for f in folders),
            name,
            f"{place}: the folders",
        )
        numbers = [facts.get(key, 0) for key in ("steps", "max_steps", "seconds")]
        numbers += [attributes.get("alive", 0), owner.get("attempt", 0)]
        _refuse_unless(all(type(number) in (int, float) for number in numbers), name, f"{place}: a number")
        texts = [owner.get(key, "") for key in ("host", "worker")] if owner else []
        texts += [facts.get(key, "") for key in ("signature", "reason", "traceback")]
        _refuse_unless(all(isinstance(text, str) for text in texts), name, f"{place}: a text")
        _refuse_unless(not owner or {"host", "worker", "attempt"} <= owner.keys(), name, f"{place}: its owner")
        _refuse_unless("/" not in owner.get("worker", ""), name, f"{place}: its worker")
        values = trial.values or []
        _refuse_unless(
            (not values or len(values) == len(study.directions)) and all(type(v) in (int, float) for v in values),
            name,
            f"{place}: its values",
        )
        _refuse_unless(all(_is_report(report) for report in reports.values()), name, f"{place}: its reports")


def _is_definition(value: Any) -> bool:
    parts = ("objectives", "params", "when", "fixed", "constraints")
    return isinstance(value, dict) and all(isinstance(value.get(part, {}), dict) for part in parts)


def _is_report(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        str(step).isdecimal() and type(number) in (int, float) for step, number in value.items()
    )


def _refuse_unless(is_sound: bool, name: str, what: str) -> None:
    if not is_sound:
        raise ConfigError(f"{name} is damaged ({what} is not as a sweep writes it): give another search.name")
