"""The search space: Hydra's sweep syntax as parameters, with conditions between them."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hftraining.core.errors import ConfigError

Value = Any  # a float, an int, a text, true, false, null, or a list of these
_CONDITION = re.compile(r"\s*([\w./@-]+?)\s*(==|!=|>=|<=|=|>|<)\s*(.+?)\s*\Z")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Condition:
    """`other operator value`: the parameter exists if this holds for another parameter or a fixed field."""

    other: str
    operator: str
    value: Value

    def holds(self, values: Mapping[str, Value]) -> bool:
        """values: of the parameters that exist, and of the fixed fields that conditions name."""
        return self.other in values and _COMPARE[self.operator](values[self.other], self.value)


@dataclass(frozen=True)
class Param:
    """One parameter. choices: label -> value of a categorical one. low, high, log, step: of a number."""

    name: str
    text: str  # as it was written
    choices: dict[Value, Value] | None = None
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    step: float | None = None
    whole: bool = False
    condition: Condition | None = None

    def value(self, suggested: Value) -> Value:
        """The config's value for what Optuna suggested."""
        return self.choices[suggested] if self.choices is not None else suggested

    def exists(self, values: Mapping[str, Value]) -> bool:
        """Whether it has a value at all. values: see Condition.holds."""
        return self.condition is None or self.condition.holds(values)

    def suggestion(self, value: Value) -> Value:
        """What Optuna suggests for a value of the config. Raises ConfigError if the parameter cannot take it."""
        if self.choices is not None:
            label = next((label for label, known in self.choices.items() if known == value), None)
            if label is None:
                raise ConfigError(
                    f"search.first: {self.name}={value} is not one of {', '.join(map(str, self.choices))}"
                )
            return label
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise ConfigError(f"search.first: {self.name}={value} lies outside {self.text}")
        return value

    def grid(self) -> list[Value]:
        """All values, as Optuna would suggest them. Raises ConfigError for an interval, which has infinitely many."""
        if self.choices is not None:
            return list(self.choices)
        if self.step is None:
            raise ConfigError(f"search.sampler=grid: {self.name}={self.text} is not a choice or a range")
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        values = [self.low + number * self.step for number in range(count)]
        return [int(value) for value in values] if self.whole else values

    def ends(self) -> list[Value]:
        """The values that a config must accept: every choice, or both ends."""
        return list(self.choices.values()) if self.choices is not None else [self.low, self.high]


def parse_space(params: Mapping[str, Any], when: Mapping[str, str]) -> list[Param]:
    """The parameters, each after the one that its condition names. Raises ConfigError."""
    conditions = {name: _condition(name, text) for name, text in when.items()}
    if unknown := [name for name in conditions if name not in params]:
        raise ConfigError(f"search.when: {unknown[0]} is not among search.params ({', '.join(params) or 'none'})")
    waiting = {name: _param(name, text, conditions.get(name)) for name, text in params.items()}
    ordered: dict[str, Param] = {}
    while waiting:
        ready = [p for p in waiting.values() if p.condition is None or p.condition.other not in waiting]
        if not ready:
            raise ConfigError(f"search.when: the conditions of {', '.join(waiting)} form a circle")
        for param in ready:
            ordered[param.name] = waiting.pop(param.name)
    return list(ordered.values())


def points_of_grid(space: list[Param], fixed: Mapping[str, Value]) -> list[dict[str, Value]]:
    """Every point of the space, as Optuna would suggest it, without parameters whose conditions fail."""
    points: list[dict[str, Value]] = [{}]
    for param in space:
        grown = []
        for point in points:
            known = {**fixed, **{other.name: other.value(point[other.name]) for other in space if other.name in point}}
            grown += [{**point, param.name: value} for value in param.grid()] if param.exists(known) else [point]
        points = grown
    return points


def parsed(name: str, text: str) -> Override:
    """An entry of search.params as Hydra reads it. Raises ConfigError if it cannot be read."""
    try:
        return OverridesParser.create().parse_override(f"{name}={text}")
    except HydraException as error:
        raise ConfigError(f"search.params: {name}={text} cannot be read ({str(error).splitlines()[0]})") from error


def _param(name: str, text: Any, condition: Condition | None) -> Param:
    shown = str(text)
    override = parsed(name, shown)
    assert override.is_sweep_override(), "run_sweep separates single values"
    sweep: Any = override.value()
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, RangeSweep):
        return _range(name, shown, sweep, log, condition)
    if not isinstance(sweep, IntervalSweep):
        values = [_plain(value) for value in override.sweep_iterator()]
        # Optuna stores plain values alone, so a list goes by its text.
        labels = [str(value) if isinstance(value, (list, dict)) else value for value in values]
        return Param(name, shown, choices=dict(zip(labels, values, strict=True)), condition=condition)
    assert sweep.start is not None and sweep.end is not None
    low, high = float(sweep.start), float(sweep.end)
    if not low < high or (log and low <= 0):
        raise ConfigError(
            f"search.params: {name}={shown} needs a lower end{' above 0' if log else ''} and a higher one"
        )
    whole = isinstance(sweep.start, int) and isinstance(sweep.end, int) and "float" not in sweep.tags
    return Param(
        name,
        shown,
        low=int(low) if whole else low,
        high=int(high) if whole else high,
        log=log,
        step=1 if whole and not log else None,
        whole=whole,
        condition=condition,
    )


def _plain(value: Any) -> Value:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _range(name: str, text: str, sweep: RangeSweep, log: bool, condition: Condition | None) -> Param:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if start is None or stop is None or step <= 0 or stop <= start or log:
        raise ConfigError(f"search.params: {name}={text} must be a rising range(start, stop, step) without tag(log)")
    # As in Python and in Hydra's own multirun, a range ends before its stop.
    count = math.ceil((stop - start) / step - 1e-9)
    whole = all(isinstance(value, int) for value in (start, stop, step))
    return Param(name, text, low=start, high=start + (count - 1) * step, step=step, whole=whole, condition=condition)


def _condition(name: str, text: str) -> Condition:
    match = _CONDITION.match(str(text))
    if match is None:
        raise ConfigError(f"search.when: {name}: {text!r} is not like model.num_layers>=2 or objective=mixed")
    other, operator, value = match.groups()
    typed = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={value}"]))["v"]  # type: ignore[index,call-overload]
    return Condition(other, operator, typed)
