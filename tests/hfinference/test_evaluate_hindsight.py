"""Hindsight in weights: planted, it is named; in honest books there is none."""

import numpy as np
import pytest

from hfinference.hindsight import hindsight
from hftraining.market.config import StocksConfig
from hftraining.market.prices import load_bars
from tests.bars_of import make_bars
from tests.hfinference.books import HONEST, PLANTED, book_of, drawn_market

FILES = ("kdd17_50_2007_2016", "stocknet88_2012_2017", "us300_2005_2017")
WIDE = make_bars(600, 12, seed=4)


@pytest.fixture(scope="module")
def sample():
    return load_bars(StocksConfig())


def named(makers, bars, seed) -> dict[str, list[str]]:
    """The sentences about each book, each on stocks and years of its own."""
    found = {}
    for number, (name, made) in enumerate(makers.items()):
        market = drawn_market(bars, 1000 * seed + number)
        found[name] = hindsight(book_of(made, market), market.bars).sentences
    return found


def test_planted_hindsight_is_named_in_20_of_20_books(sample):
    found = named(PLANTED, sample, seed=31)
    assert len(found) == 20 and all(found.values()), [name for name, said in found.items() if not said]


@pytest.mark.slow
def test_50_honest_books_give_no_alarm(sample):
    found = named(HONEST, sample, seed=32)
    assert len(found) == 50 and not any(found.values()), {name: said for name, said in found.items() if said}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_other_markets_say_the_same(shared_data, file):
    bars = load_bars(
        StocksConfig(name=file, source="files", path=str(shared_data / f"{file}.parquet"), bad_rows="drop")
    )
    for seed in (41, 42):
        assert not any(named(HONEST, bars, seed).values())
        missed = [name for name, said in named(PLANTED, bars, seed).items() if not said]
        assert not missed, missed


def known_by(correlation, seed=0):
    """Weights across stocks of a correlation with what can be earned from the next open to the open after it."""
    rng = np.random.default_rng(seed)
    tomorrow_TS = np.full(WIDE.open_TS.shape, np.nan)
    tomorrow_TS[:-2] = np.log(WIDE.open_TS[2:] / WIDE.open_TS[1:-1])
    unit_TS = tomorrow_TS / np.nanstd(tomorrow_TS)
    return np.nan_to_num(correlation * unit_TS) + np.sqrt(1 - correlation**2) * rng.normal(size=unit_TS.shape)


def test_the_figures_are_those_of_a_loop_over_the_days():
    weights_TS = known_by(0.5)
    said = hindsight(weights_TS, WIDE).later
    daily = []
    for t in range(len(weights_TS) - 2):
        tomorrow_S = np.log(WIDE.open_TS[t + 2] / WIDE.open_TS[t + 1])
        past = np.log(WIDE.close_TS[1 : t + 1] / WIDE.close_TS[:t])
        if len(past) >= 10:
            decay = (60 / 61) ** np.arange(len(past))[::-1]
            mean = np.average(past, axis=0, weights=decay)
            volatility = np.sqrt(np.average((past - mean) ** 2, axis=0, weights=decay))  # up to a factor of the day
            daily.append(np.corrcoef(weights_TS[t], tomorrow_S / volatility)[0, 1])
    daily = np.array(daily)
    t = daily.mean() / daily.std(ddof=1) * np.sqrt(len(daily))
    assert f"correlate {daily.mean():+.2f} across stocks" in said and f"over {len(daily)} decisions" in said
    assert t > 30 and "from the next open to the open after it" in said


def test_skill_is_no_hindsight_and_more_than_skill_is():
    assert not hindsight(known_by(0.04), WIDE).sentences
    assert hindsight(known_by(0.2), WIDE).later


def test_a_book_that_is_reliably_wrong_about_tomorrow_knows_it_too():
    assert "no rule is so reliably wrong" in hindsight(-known_by(0.4), WIDE).later


def test_weights_of_the_day_itself_are_told_from_those_of_its_close():
    since_open_TS = np.log(WIDE.close_TS / WIDE.open_TS)
    whole_TS = np.vstack([np.zeros((1, 12)), np.log(WIDE.close_TS[1:] / WIDE.close_TS[:-1])])
    assert "know their own day from its open on" in hindsight(since_open_TS, WIDE).own_day
    assert "a one-day momentum" in hindsight(whole_TS, WIDE).note and not hindsight(whole_TS, WIDE).sentences
    for weights_TS in (-since_open_TS, -whole_TS):
        assert not hindsight(weights_TS, WIDE).sentences and not hindsight(weights_TS, WIDE).note


def test_few_decisions_and_none_say_nothing():
    once_TS = np.full(WIDE.close_TS.shape, np.nan)
    assert not hindsight(once_TS, WIDE).sentences
    once_TS[50:55] = known_by(0.9)[50:55]
    assert not hindsight(once_TS, WIDE).sentences
