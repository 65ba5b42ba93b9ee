"""The rules of a run with some words of the command line over them: portfolio=top profit_tracker.stop_loss=0."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from hftraining.core.errors import ConfigError, did_you_mean, listed
from hftraining.core.values import flatten
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig, typed_config, unknown_key

RULES = ("portfolio", "profit_tracker", "evidence")  # the groups that a trained model can be judged under


def rules_of(config: ExperimentConfig, words: Sequence[str]) -> ExperimentConfig:
    """The config of a run where it says how forecasts are traded and judged, with words over it as train.py takes them.

    words: portfolio=top sets all fields of the group, profit_tracker.stop_loss=0 one of them; an option of a group
    comes before its fields. Raises ConfigError, in one line, for a word of another group, since a model is trained
    already, for what does not exist, and for what does not fit the rest of the config.
    """
    if not words:
        return config
    values = with_words(dataclasses.asdict(config), words, RULES, "a trained model is what it is, so that")
    return typed_config(values)


def with_words(values: dict[str, Any], words: Sequence[str], groups: Collection[str], why: str) -> dict[str, Any]:
    """Nested values of a config with words over those of some groups. why: begins the end of the line that refuses."""
    keys = [_key(word) for word in words]
    for key in keys:
        group = key.split(".")[0]
        if group not in groups:
            there = group in {field.name for field in dataclasses.fields(ExperimentConfig)}
            known = [name for name in flatten(values) if name.split(".")[0] in groups]
            if not there and "." not in key and (hint := did_you_mean(key, [*groups, *known])):
                raise ConfigError(f"{key}: there is no such field{hint}")
            raise ConfigError(f"{key}: {why} only {listed(groups)} can be set here")
    made = composed(list(words))
    found = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    for key in sorted(keys, key=lambda key: key.count(".")):  # a group first, whose fields may be set, too
        group, _, field = key.partition(".")
        if not field:
            found[group] = dict(made[group])
            continue
        flat = flatten(made[group])
        if field not in made[group] and field not in flat:
            raise ConfigError(unknown_key(key))
        name, _, rest = field.partition(".")
        found[group][name] = (found[group][name] | {rest: flat[field]}) if rest else made[group][name]
    return found


def _key(word: str) -> str:
    """The name that a word sets. Raises ConfigError for anything else."""
    key, equals, _ = word.partition("=")
    if not equals or key[:1] in ("+", "~"):
        raise ConfigError(f"{word[:80]}: give NAME=VALUE, such as portfolio=top or profit_tracker.stop_loss=0")
    return key
