"""Config files of earlier versions, in today's fields."""

import pytest
import yaml

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import load_config

OLD = {
    "stocks": {"source": "sample"},
    "profit_tracker": {"policy": "edge", "horizon": 5, "full_size_at": 0.2, "top_k": 1, "rebalance_band": 0.05},
}


def loaded(tmp_path, values):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_config(path)


def test_the_policy_of_an_old_config_is_the_portfolio_that_trades_as_it_did(tmp_path):
    config = loaded(tmp_path, OLD)
    portfolio = config.portfolio
    assert (portfolio.kind, portfolio.horizon, portfolio.full_size_at) == ("edge", 5, 0.2)
    assert (portfolio.smoothing, portfolio.trade_rate, portfolio.every) == (0.0, 1.0, 1)
    assert config.profit_tracker.rebalance_band == 0.05


def test_the_sample_of_an_old_config_is_the_one_of_five_stocks(tmp_path):
    assert loaded(tmp_path, OLD).stocks.source == "sample5"
    today = {"stocks": {"source": "sample", "csv": {"separator": ","}}}
    assert loaded(tmp_path, today).stocks.source == "sample"


def test_a_policy_that_is_gone_is_named_with_what_takes_its_place(tmp_path):
    with pytest.raises(ConfigError, match=r"portfolio.kind=top_k is not one of .*: it is gone, long_short is nearest"):
        loaded(tmp_path, {"profit_tracker": {"policy": "top_k"}})


def test_an_empty_text_of_an_old_config_is_none_as_it_was_read(tmp_path):
    values = {"init_from": "", "resume": "", "stocks": {"path": "", "snapshot": "", "csv": {"separator": ","}}}
    config = loaded(tmp_path, values)
    assert (config.init_from, config.resume, config.stocks.path, config.stocks.snapshot) == (None,) * 4
    with pytest.raises(ConfigError, match="output_dir= is empty"):  # which has a default, and none would be another
        loaded(tmp_path, {"output_dir": ""})
