"""What stops a paper account: the limits, and the halts by name."""

import dataclasses
import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from hfinference.live.exchange import Exchange
from hfinference.live.risk import (
    HALTS,
    Halt,
    RiskLimits,
    check_account,
    check_bars,
    check_clock,
    check_features,
    check_forecast,
    check_orders,
    limits_and_others,
)
from hftraining.core.bars import Bars
from hftraining.core.command import run_command
from hftraining.core.errors import ConfigError
from hftraining.core.forecast import Forecast
from hftraining.trading.config import TradingRules

XNYS = Exchange()


def test_a_halt_ends_a_command_with_its_name_and_reason_in_one_line(capsys):
    def trade(_):
        raise Halt("stale_bars", "the bars end on 2024-05-03\x1b[2J\nand more: fetch them")

    assert run_command(trade) == 2
    said = capsys.readouterr().err
    assert said == "halted (stale_bars): the bars end on 2024-05-03\\x1b[2J and more: fetch them\n"


def test_a_halt_has_one_of_the_names_that_are_documented():
    with pytest.raises(AssertionError):
        Halt("whim", "no reason")
    assert all(name.isidentifier() and text for name, text in HALTS.items())


def test_limits_are_read_from_words_and_the_words_of_other_groups_are_left():
    limits, others = limits_and_others(
        ["portfolio=top", "risk.max_orders=7", "risk.max_daily_loss=0.5", "risk.max_daily_loss=5e-2", "stocks.path=x"]
    )
    assert limits == RiskLimits(max_orders=7, max_daily_loss=0.05)
    assert type(limits.max_orders) is int
    assert others == ["portfolio=top", "stocks.path=x"]


@pytest.mark.parametrize("field", dataclasses.fields(RiskLimits), ids=lambda field: field.name)
def test_each_limit_is_typed_and_has_ends(field):
    for text in ("much", "", "nan", "inf", "-1", "1e99"):
        with pytest.raises(ConfigError, match=rf"^risk\.{field.name}=") as refused:
            RiskLimits.of([f"risk.{field.name}={text}"])
        assert "\n" not in str(refused.value)
    RiskLimits.of([f"risk.{field.name}=1"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("risk.max_daily_los=1", "risk.max_daily_los: there is no such field; did you mean risk.max_daily_loss?"),
        ("risk.foo=1", "risk.foo: there is no such field (there are max_daily_loss, max_drawdown, "),
        ("risk=loose", "risk=loose: give risk.NAME=VALUE, such as risk.max_daily_loss=0.05"),
        ("+risk.max_orders=1", "+risk.max_orders=1: give risk.NAME=VALUE"),
        ("risk.max_orders=1.5", "risk.max_orders=1.5 is not a whole number"),
        ("risk.max_daily_loss=5", "risk.max_daily_loss=5 must lie in [1e-06, 1]: 5 % is 0.05"),
    ],
)
def test_a_wrong_limit_is_refused_in_one_line(word, said):
    with pytest.raises(ConfigError) as refused:
        limits_and_others([word])
    assert str(refused.value).startswith(said)


# --- the gate -----------------------------------------------------------------------------------------------------

RULES, LOOSE = TradingRules(), RiskLimits()
EVENING = datetime(2024, 5, 3, 21, 0, tzinfo=UTC)  # a Friday, one hour after the close


def bars_to(last: str, symbols: int = 40, sessions: int = 30) -> Bars:
    """Bars of New York's sessions up to a day, of prices that do not matter."""
    days = XNYS.sessions(date.fromisoformat(last) - timedelta(days=90), date.fromisoformat(last))[-sessions:]
    price_TS = np.full((len(days), symbols), 10.0)
    names = tuple(f"S{s}" for s in range(symbols))
    return Bars(names, np.array(days, "datetime64[D]"), *(price_TS.copy() for _ in range(5)))


def without(bars: Bars, gaps: dict[int, slice]) -> Bars:
    """The bars with some rows of some symbols taken out."""
    for s, rows in gaps.items():
        for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"):
            getattr(bars, name)[rows, s] = np.nan
    return bars


def halted(check, *arguments, **named) -> str:
    """The name of the halt that a check raises; empty where it passes."""
    try:
        check(*arguments, **named)
    except Halt as halt:
        assert halt.name in HALTS and "\n" not in str(halt)
        return halt.name
    return ""


@pytest.mark.parametrize(
    ("last", "now", "allowed", "name"),
    [
        ("2024-05-03", EVENING, 0, ""),
        ("2024-05-02", EVENING, 0, "stale_bars"),
        ("2024-05-02", EVENING, 1, ""),
        ("2024-05-01", EVENING, 1, "stale_bars"),
        ("2024-05-02", EVENING - timedelta(hours=2), 0, ""),  # in the session of the 3rd
        ("2024-05-03", EVENING - timedelta(hours=2), 0, "future_bars"),
        ("2024-05-03", EVENING + timedelta(hours=60), 0, ""),  # over the weekend
        ("2024-05-03", EVENING + timedelta(hours=72), 0, "stale_bars"),
        ("2023-11-22", datetime(2023, 11, 24, 18, 0, tzinfo=UTC), 0, "stale_bars"),  # the half-day has closed
        ("2023-11-22", datetime(2023, 11, 24, 17, 59, tzinfo=UTC), 0, ""),
        ("2012-10-26", datetime(2012, 10, 30, 23, 0, tzinfo=UTC), 0, ""),  # Sandy: two days without a session
        ("2030-01-04", EVENING, 0, "future_bars"),
    ],
)
def test_bars_end_with_the_session_that_the_exchange_closed_last(last, now, allowed, name):
    limits = RiskLimits(max_stale_sessions=allowed)
    assert halted(check_bars, bars_to(last), (), limits, now=now, exchange=XNYS) == name


def missing(gaps: dict[int, slice], held=(), **limits) -> str:
    bars = without(bars_to("2024-05-03"), gaps)
    return halted(check_bars, bars, held, RiskLimits(**limits), now=EVENING, exchange=XNYS)


TODAY, LONG = slice(-1, None), slice(-20, None)


def test_one_halted_stock_stops_nobody_and_a_feed_full_of_holes_stops_all():
    assert missing({3: TODAY}) == ""
    assert missing({3: TODAY}, held=["S3"]) == ""
    assert missing({3: TODAY}, max_missing=0.001) == ""  # one always may
    assert missing({3: TODAY}, max_missing=0.0) == "missing_bars"
    assert missing({s: TODAY for s in range(4)}) == ""  # a tenth of 40
    assert missing({s: TODAY for s in range(5)}) == "missing_bars"
    assert missing({s: TODAY for s in range(5)}, max_missing=0.125) == ""


def test_stocks_that_are_gone_are_not_missing_unless_they_are_held():
    gone = {s: LONG for s in range(10)}
    assert missing(gone) == ""
    assert missing(gone, held=[f"S{s}" for s in range(3)]) == ""
    assert missing(gone, held=[f"S{s}" for s in range(4)]) == "missing_bars"  # 4 of 34
    assert missing({s: slice(None) for s in range(40)}) == "missing_bars"


def test_without_an_exchange_only_holes_are_seen():
    assert halted(check_bars, bars_to("2020-05-01"), (), LOOSE, now=EVENING, exchange=None) == ""
    bars = without(bars_to("2020-05-01"), {s: TODAY for s in range(5)})
    assert halted(check_bars, bars, (), LOOSE, now=EVENING, exchange=None) == "missing_bars"


def forecast_with(value: float, symbols=(), columns: int = 40) -> Forecast:
    """Forecasts of 0.01 at all times, but for some symbols today."""
    quantiles_TSHQ, head_TS = np.full((30, columns, 1, 3), 0.01), np.full((30, columns), np.nan)
    quantiles_TSHQ[-1, list(symbols)] = value
    return Forecast(quantiles_TSHQ, head_TS, (5,), (0.1, 0.5, 0.9))


def test_a_forecast_of_nothing_halts_for_all_and_for_what_is_held():
    bars = bars_to("2024-05-03")
    assert halted(check_forecast, forecast_with(np.nan, [3]), bars, ["S4"]) == ""
    assert halted(check_forecast, forecast_with(np.nan, [3]), bars, ["S3"]) == "nan_forecast"
    assert halted(check_forecast, forecast_with(np.nan, range(40)), bars, ()) == "nan_forecast"
    assert halted(check_forecast, forecast_with(np.inf, [3]), bars, ()) == "nan_forecast"
    assert halted(check_forecast, forecast_with(np.nan, [3]), without(bars, {3: TODAY}), ["S3"]) == ""  # no bar today


def test_a_forecast_that_is_only_a_position_is_one():
    quantiles = forecast_with(np.nan, range(40))
    head = dataclasses.replace(quantiles, head_TS=np.ones((30, 40)))
    assert halted(check_forecast, head, bars_to("2024-05-03"), ["S3"]) == ""


def test_other_features_than_those_of_the_account_halt_and_are_named():
    assert halted(check_features, ("a", "b"), ["a", "b"]) == ""
    with pytest.raises(Halt, match="with c and without b: bring"):
        check_features(("a", "b"), ("a", "c"))
    with pytest.raises(Halt, match="reordered: bring"):
        check_features(("a", "b"), ("b", "a"))


PRICE = {"A": 10.0, "B": 100.0, "C": math.nan}


@pytest.mark.parametrize(
    ("orders", "held", "limits", "name"),
    [
        ({"A": 50.0, "B": -2.0}, {}, {}, ""),
        ({"A": 50.0, "B": -2.0}, {}, {"max_orders": 1}, "orders"),
        ({"A": 50.0, "B": 0.0}, {}, {"max_orders": 1}, ""),  # nothing to send for B
        ({"Z": 1.0}, {}, {}, "orders"),
        ({"A": math.nan}, {}, {}, "orders"),
        ({"A": math.inf}, {}, {}, "orders"),
        ({"C": 1.0}, {}, {}, "orders"),
        ({}, {"C": 1.0}, {}, "unknown_position"),
        ({}, {"Z": 1.0}, {}, "unknown_position"),
        ({"A": 50.0}, {}, {"max_position": 0.5}, ""),  # 500 of 1,000
        ({"A": 50.1}, {}, {"max_position": 0.5}, "position_limit"),
        ({"A": -50.1}, {}, {"max_position": 0.5}, "position_limit"),
        ({"A": 10.0}, {"A": 41.0}, {"max_position": 0.5}, "position_limit"),  # what is held counts
        ({"B": 1.0}, {"A": 51.0}, {"max_position": 0.5}, "position_limit"),
        ({"A": -10.0}, {"A": 80.0}, {"max_position": 0.5}, ""),  # to make it smaller is allowed
        ({"A": -80.0}, {"A": 80.0}, {"max_position": 0.5}, ""),
        ({"A": 60.0, "B": -6.0}, {}, {"max_gross": 1.2, "max_position": 1.0}, ""),
        ({"A": 60.0, "B": -6.1}, {}, {"max_gross": 1.2, "max_position": 1.0}, "gross_limit"),
        ({"B": 1.0}, {"A": 120.0}, {"max_gross": 1.2, "max_position": 2.0}, "gross_limit"),
        ({"A": -20.0}, {"A": 150.0}, {"max_gross": 1.2, "max_position": 2.0}, ""),
        ({"A": -20.0, "B": 2.0}, {"A": 150.0, "B": -5.0}, {"max_gross": 1.2, "max_position": 2.0}, ""),
        ({"A": -20.0, "B": 1.0}, {"A": 150.0}, {"max_gross": 1.2, "max_position": 2.0}, "gross_limit"),
        ({}, {"A": 150.0}, {"max_gross": 1.2, "max_position": 2.0}, "gross_limit"),
        ({"A": 200.0}, {}, {}, ""),  # twice the run's own 1.0
        ({"A": 200.1}, {}, {}, "position_limit"),
        ({"A": 190.0, "B": 1.1}, {}, {}, "gross_limit"),
    ],
)
def test_orders_pass_within_the_limits_and_halt_beyond_them(orders, held, limits, name):
    assert halted(check_orders, orders, held, PRICE, 1_000.0, RiskLimits(**limits), RULES) == name


def test_limits_that_are_not_set_are_those_of_the_runs_rules():
    rules = TradingRules(max_position_size=0.3, max_gross=3.0)
    assert LOOSE.of_run(rules) == RiskLimits(max_position=0.6, max_gross=6.0)
    assert RiskLimits(max_position=0.2, max_gross=0.1).of_run(rules) == RiskLimits(max_position=0.2, max_gross=0.1)


def test_an_account_worth_nothing_orders_nothing():
    for equity in (0.0, -5.0, math.nan):
        assert halted(check_orders, {}, {}, PRICE, equity, LOOSE, RULES) == "bankrupt"


@pytest.mark.parametrize(
    ("equity", "limits", "name"),
    [
        ([1000.0], {}, ""),
        ([1000.0, 800.0], {}, ""),  # a fall by a fifth: at the limit
        ([1000.0, 799.0], {}, "daily_loss"),
        ([1000.0, 960.0], {"max_daily_loss": 0.03}, "daily_loss"),
        ([1000.0, 900.0, 810.0, 729.0], {}, ""),
        ([1000.0, 900.0, 810.0, 729.0], {"max_drawdown": 0.2}, "drawdown"),
        ([1000.0, 1500.0, 1250.0, 1100.0], {"max_drawdown": 0.25}, "drawdown"),  # from the peak, not from the start
        ([1000.0, 0.0], {"max_daily_loss": 1.0, "max_drawdown": 1.0}, "bankrupt"),
        ([1000.0, math.nan], {}, "bankrupt"),
        ([1000.0, 1.0], {"max_daily_loss": 1.0, "max_drawdown": 1.0}, ""),
    ],
)
def test_losses_beyond_the_limits_halt(equity, limits, name):
    assert halted(check_account, equity, RiskLimits(**limits)) == name


@pytest.mark.parametrize(
    ("broker", "entry", "limits", "name"),
    [
        (None, None, {}, ""),
        (0, 0, {}, ""),
        (59, None, {}, ""),
        (600, None, {}, "clock"),  # ten minutes, on either side
        (-600, None, {}, "clock"),
        (None, 600, {}, "clock"),  # an entry from the future: our clock went back
        (None, 59, {}, ""),
        (None, -600, {}, ""),  # time has passed
        (600, None, {"max_clock_skew_seconds": 600.0}, ""),
        (2, None, {"max_clock_skew_seconds": 1.0}, "clock"),
    ],
)
def test_a_clock_that_is_ten_minutes_off_or_goes_backwards_halts(broker, entry, limits, name):
    broker, entry = (None if seconds is None else EVENING + timedelta(seconds=seconds) for seconds in (broker, entry))
    assert halted(check_clock, EVENING, RiskLimits(**limits), broker=broker, last_entry=entry) == name
