"""A trained run loaded: dated frames, the words over its rules, and its bars again or those of other stocks."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
import torch

from hfinference import load_model
from hfinference.bars_of_run import bars_of_run
from hfinference.overrides import rules_of
from hfinference.trained import Table, forecast_of, threads_of
from hftraining.core.errors import ConfigError, UserError
from hftraining.experiment.config import load_config
from tests.bars_of import frame_of, make_bars, write_csv_files
from tests.runs_of import snapshot_run


@pytest.fixture(scope="module")
def model(base):
    return load_model(base)


def test_a_frame_in_gives_a_frame_out_by_date_and_symbol_with_a_column_a_horizon_and_quantile(model, base):
    bars = bars_of_run(model).universe
    found, arrays = model.forecast(frame_of(bars)), model.predict(bars)
    assert found.index.names == ["date", "symbol"] and list(found.columns[:5]) == [
        *("q10_1", "q25_1", "q50_1", "q75_1", "q90_1")
    ]
    assert [name for name in found.columns if name.endswith("_5")] == [*("q10_5", "q25_5", "q50_5", "q75_5", "q90_5")]
    day, s = bars.sessions_T[-1], bars.symbols_S.index("S1")
    row = found.loc[(pd.Timestamp(str(day)), "S1")]
    assert row["q75_5"] == arrays.quantiles_TSHQ[-1, s, 1, 3] and row["head"] == arrays.head_TS[-1, s]
    known = np.isfinite(arrays.quantiles_TSHQ).all(axis=(2, 3)).sum()
    assert 0 < known == len(found) < bars.close_TS.size and found.notna().all(axis=None)


def test_the_forecast_of_some_rows_is_that_of_the_run_to_the_bit(model):
    bars = bars_of_run(model).universe
    whole, table = model.predict(bars), Table(bars)
    part = forecast_of(model.predictor, table, bars.symbols_S, slice(300, 400))
    np.testing.assert_allclose(part.quantiles_TSHQ, whole.quantiles_TSHQ[300:400], atol=1e-6)
    one = forecast_of(model.predictor, table, ["S1"], slice(300, 400))
    np.testing.assert_allclose(one.quantiles_TSHQ[:, 0], part.quantiles_TSHQ[:, 1], atol=1e-6)


@pytest.mark.parametrize("asked", [1, 3, 1024])
def test_a_run_asks_for_its_threads_and_for_no_more_than_the_machine_has(model, asked):
    before = torch.get_num_threads()
    with threads_of(dataclasses.replace(model, manifest={"threads": asked})):
        assert torch.get_num_threads() == min(asked, max(before, os.cpu_count()))
    assert torch.get_num_threads() == before


def test_words_set_a_group_or_a_field_of_the_rules_and_leave_the_rest_as_the_run_had_it(base):
    config = load_config(base / "config.yaml")
    changed = rules_of(config, ["portfolio.smoothing=3", "portfolio=top", "profit_tracker.stop_loss=0"])
    assert (changed.portfolio.kind, changed.portfolio.smoothing) == ("top", 3.0)
    assert config.profit_tracker.stop_loss > 0.0 == changed.profit_tracker.stop_loss
    assert changed.profit_tracker.commission == config.profit_tracker.commission == 0.0001
    assert changed.model == config.model and rules_of(config, []) is config


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "model.hidden_size=3",
            "model.hidden_size: a trained model is what it is, so that only portfolio",
        ),
        ("seed=3", "seed: a trained model is what it is, so that only"),
        ("portfolio=topp", "portfolio=topp: there is no such option; did you mean top?"),
        ("portfolio.smothing=1", "portfolio.smothing: there is no such field; did you mean portfolio.smoothing?"),
        ("profit_tracker.commission=7", "profit_tracker.commission=7.0 must be below 1"),
        ("portfolio.horizon=3", r"portfolio.horizon=3 is not one of objective.horizons=\[1, 5\]"),
        ("portfolio", "portfolio: give NAME=VALUE"),
        ("+portfolio.kind=top", "give NAME=VALUE"),
        ("smothing=3", "smothing: "),
    ],
)
@pytest.mark.slow
def test_a_word_that_is_none_is_refused_in_one_line(base, word, message):
    with pytest.raises(ConfigError, match=message) as refused:
        rules_of(load_config(base / "config.yaml"), [word])
    assert "\n" not in str(refused.value)


def test_the_bars_of_a_run_are_its_own_also_where_there_are_more_days_now(model, tmp_path):
    own = bars_of_run(model)
    assert own.symbols == own.universe.symbols_S == ("S0", "S1", "S2") and own.notes == ()
    assert own.universe.fingerprint() == model.manifest["data"]["fingerprint"]
    longer = write_csv_files(make_bars(n_sessions=520, seed=3), tmp_path)
    later = bars_of_run(model, words=[f"stocks.path={longer}"])
    assert len(later.universe.sessions_T) == 520 and later.symbols == own.symbols


def test_some_stocks_of_the_run_see_its_market_and_others_are_said_to_be_new(model, tmp_path):
    some = bars_of_run(model, ["s1"])
    assert some.symbols == ("S1",) and some.universe.symbols_S == ("S0", "S1", "S2") and some.notes == ()
    assert some.traded.symbols_S == ("S1",)
    others = bars_of_run(model, ["sample5"])
    assert "AAPL" in others.symbols and len(others.symbols) == 5
    assert "never saw" in others.notes[0] and "those of the 5 stocks given here; it learned from 3" in others.notes[1]
    with pytest.raises(UserError, match="ZZZ"):
        bars_of_run(model, ["ZZZ"])


def test_a_model_without_a_run_wants_to_be_told_its_stocks(base):
    bare = load_model(base / "model")
    assert bare.config is None and bare.days == load_model(base).days
    with pytest.raises(ConfigError, match="is a model without a run: say which stocks"):
        bars_of_run(bare)
    assert len(bars_of_run(bare, ["sample5"]).symbols) == 5


@pytest.mark.slow
def test_a_run_on_a_snapshot_gets_it_again_and_a_missing_one_is_named(tmp_path):
    run = load_model(snapshot_run(tmp_path))
    own, recorded = bars_of_run(run), run.manifest["data"]["snapshot"]
    assert own.universe.snapshot == recorded == bars_of_run(run, snapshot=recorded).universe.snapshot
    with pytest.raises(UserError, match="snapshot missing: nowhere is not in "):
        bars_of_run(run, snapshot="nowhere")
    with pytest.raises(ConfigError, match="are of source=sample5, not of yahoo"):
        bars_of_run(run, ["sample5"], snapshot=recorded)
