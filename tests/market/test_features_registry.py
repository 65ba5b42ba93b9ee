"""The registry: what a feature may be, the perturbation proof, the sets, and features of installed packages."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import CONF, typed_config
from hftraining.market.features import kernels
from hftraining.market.features.config import FeaturesConfig
from hftraining.market.features.lookup import find, marks_of, packages_of
from hftraining.market.features.names import BASIC, OURS, WIDE_BASES, FeatureError
from hftraining.market.features.perturbation import faults_of, is_marked_alike, mark_of
from hftraining.market.features.registry import REGISTRY, Feature, feature
from hftraining.market.features.rows import Rows
from hftraining.market.features.table import make_features
from tests import their_features
from tests.bars_of import make_bars


def declared(make, inputs=("close",), lookback=1, scale_free=False):
    return Feature("tried", make, inputs, lookback, scale_free, "A feature that is tried.")


def test_the_names_are_those_that_are_registered():
    assert set(REGISTRY) == set(OURS)
    assert all(find(name).name == name and find(f"{name}_rank").name == name for name in OURS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_features_pass_the_perturbation_proof(name):
    assert faults_of(REGISTRY[name]) == []


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (declared(lambda rows: np.roll(rows.close_SN, -1, axis=1)), "looks ahead"),
        (declared(lambda rows: rows.close_SN / np.nan_to_num(rows.close_SN).max(axis=1, keepdims=True)), "looks ahead"),
        (declared(lambda rows: rows.close_SN * (rows.close_SN.shape[1] > 300)), "others when the bars end on it"),
        (declared(lambda rows: rows.close_SN * len(rows.close_SN)), "mixes the symbols"),
        (declared(lambda rows: rows.close_SN + rows.high_SN), "it reads high, which its inputs do not name"),
        (declared(lambda rows: rows.close_SN + rows.on_days(rows.market_T)), "it reads market"),
        (declared(lambda rows: rows.close_SN, scale_free=True), "claims to be scale-free"),
        (declared(lambda rows: np.nancumsum(rows.return_SN, axis=1)), "more than the 1 rows before today's"),
        (declared(lambda rows: kernels.lag(rows.close_SN, 30), lookback=20), "more than the 20 rows before today's"),
        (declared(lambda rows: np.multiply(rows.close_SN, 2.0, out=rows.close_SN)), "changes its inputs"),
        (declared(lambda rows: np.full_like(rows.close_SN, np.nan)), "never known"),
        (declared(lambda rows: rows.close_SN[:, 1:]), "values_SN of the shape"),
    ],
)
def test_the_proof_finds(made, fault):
    assert fault in faults_of(made)[0]


def test_a_negative_lag_cannot_be_written():
    x_SN = np.arange(6.0).reshape(1, 6)
    for rolling in (kernels.lag, kernels.change, kernels.mean, kernels.std):
        with pytest.raises(kernels.LooksAhead, match="a span or lag of -1 rows"):
            rolling(x_SN, -1)
    with pytest.raises(kernels.LooksAhead):
        feature("ahead_{}", spans=[5, -5], inputs=["close"], lookback=5)(lambda rows, span: rows.close_SN)
    with pytest.raises(ValueError, match="feature ahead: lookback: a span or lag of -5 rows"):
        replace(declared(lambda rows: rows.close_SN), name="ahead", lookback=-5)
    assert not [name for name in REGISTRY if name.startswith("ahead")]


@pytest.mark.parametrize("name", ["", "a-b", "their_rank", "x" * 61, "\u00fc"])
def test_a_name_is_a_plain_word_and_not_that_of_a_rank(name):
    with pytest.raises(ValueError, match="a name has letters, digits and _, at most 60, and no _rank at its end"):
        replace(declared(lambda rows: rows.close_SN), name=name)


def test_a_name_is_registered_once_and_its_inputs_are_known_ones():
    with pytest.raises(ValueError, match="feature gap: there is one of this name"):
        feature("gap", inputs=["open"], lookback=1)(lambda rows: rows.open_SN)
    with pytest.raises(ValueError, match=r"inputs=.* must be of open, high, low, close, volume, market"):
        declared(lambda rows: rows.close_SN, inputs=("vwap",))


@pytest.mark.parametrize("path", sorted((CONF / "features").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sets_name_features_that_are_registered(path):
    values = yaml.safe_load(path.read_text())
    assert values["name"] == path.stem
    assert {find(name).name for name in FeaturesConfig(**values).columns} <= set(REGISTRY)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([], "features.columns: 0 features: there must be at least 1"),
        (["gap", "gap"], "features.columns: gap is named twice"),
        (["retrun_1d"], r"features.columns: retrun_1d is no feature .*; did you mean return_1d\?"),
        (["momentum_5_rnak"], r"did you mean momentum_5_rank\?"),
        (["gap_rank_rank"], "gap_rank_rank is no feature"),
        (["gap\x1b[31m\n"], r"gap\?\[31m\? is no feature"),
        ([f"x{i}" for i in range(2000)], "2000 features: there must be at least 1, and at most 1,000"),
    ],
)
def test_columns_that_cannot_be_made_are_refused_in_one_line(columns, said):
    with pytest.raises(ConfigError, match=said) as caught:
        typed_config({"features": {"columns": columns}})
    assert "\n" not in str(caught.value)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    with their_features.installed(tmp_path, monkeypatch):
        yield


def test_an_installed_package_adds_features_which_are_loaded_when_they_are_asked_for(installed):
    config = typed_config({"features": {"columns": ["gap", "over_its_week", "over_its_week_rank"]}})
    assert "their_features" not in sys.modules
    bars = make_bars(n_sessions=60)
    made = make_features(bars, config.features.columns)
    mean_TS = np.lib.stride_tricks.sliding_window_view(bars.close_TS, 5, axis=0).mean(axis=2)
    np.testing.assert_allclose(
        made.values_TSF[20:, :, 1], (bars.close_TS[4:] / mean_TS - 1.0)[16:], rtol=1e-5, atol=1e-7
    )
    assert packages_of(config.features.columns) == {"their-features": "1.2"} and packages_of(BASIC) == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tomorrow", "feature tomorrow of their-features 1.2 is refused: it looks ahead"),
        ("ahead", "feature ahead of their-features 1.2 cannot be used: LooksAhead: a span or lag of -1 rows"),
        (
            "remembered",
            "feature remembered of their-features 1.2 is refused: it keeps what it has made",
        ),
        ("cleaned", "feature cleaned of their-features 1.2 is refused: it changes its inputs: rows.return_SN"),
        ("counting", "feature counting of their-features 1.2 is refused: it looks ahead"),
        ("missing", "feature missing of their-features 1.2 cannot be used: AttributeError"),
        ("leaves", "feature leaves of their-features 1.2 cannot be used: SystemExit: 0"),
        ("complex_numbers", "feature complex_numbers of their-features 1.2 is refused: it gives values of complex128"),
    ],
)
def test_a_feature_of_a_package_that_looks_ahead_or_cannot_be_loaded_is_refused_by_name(installed, name, said):
    with pytest.raises(FeatureError, match=said) as caught:
        make_features(make_bars(n_sessions=60), [name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost", "cannot be used: IndexError: list index out of range"),
        ("narrow", "is refused: it gives ndarray where values_SN of the shape of close_SN are wanted"),
        ("one_number", "is refused: it gives float where values_SN of the shape of close_SN are wanted"),
    ],
)
def test_a_feature_of_a_package_that_fails_on_the_bars_of_a_run_alone_is_refused_by_name(installed, name, said):
    make_features(make_bars(n_sessions=60), [name])
    with pytest.raises(FeatureError, match=f"feature {name} of their-features 1.2 {said}"):
        make_features(make_bars(n_sessions=500), [name, "gap"])


def test_what_a_feature_of_a_package_does_to_its_rows_reaches_no_other_feature_and_no_label(installed):
    bars, ours = make_bars(n_sessions=500), ["momentum_5", "market_return", "volatility_5_63"]
    plain = make_features(bars, ours)
    beside = make_features(bars, ["spoils", *ours, "spoils_rank"])
    np.testing.assert_array_equal(beside.values_TSF[:, :, 1:4], plain.values_TSF)
    np.testing.assert_array_equal(beside.volatility_TS, plain.volatility_TS)


def test_a_feature_of_a_package_that_fails_where_it_is_marked_is_refused_by_name(installed, monkeypatch):
    assert set(marks_of(["over_its_week_rank", "gap"])) == {"over_its_week"}
    monkeypatch.setattr(sys.modules["their_features"], "mean", lambda x_SN, span: sys.exit(0))
    with pytest.raises(FeatureError, match=r"over_its_week of their-features 1\.2 cannot be used: SystemExit: 0"):
        marks_of(["over_its_week"])


def test_the_page_about_features_has_a_row_for_each_and_the_size_of_each_set():
    page = (CONF.parent / "docs" / "features.md").read_text()
    for name in dict.fromkeys((*BASIC, *WIDE_BASES)):
        made = REGISTRY[name]
        sets = ", ".join(known for known, columns in (("basic", BASIC), ("wide", WIDE_BASES)) if name in columns)
        units = "" if made.scale_free else "yes"
        row = f"| `{name}` | {made.doc} | {', '.join(made.inputs)} | {made.lookback} | {units} | {sets} |"
        assert row in page, row
    for path in (CONF / "features").glob("*.yaml"):
        columns = FeaturesConfig(**yaml.safe_load(path.read_text())).columns
        assert f"| `{path.stem}` | {len(columns)} |" in page, path.stem


@pytest.mark.parametrize("span", [2, 5, 20, 61])
def test_windows_that_are_added_up_side_by_side_have_the_bits_of_each_by_itself(span):
    rng = np.random.default_rng(span)
    x_SN = rng.normal(size=(2, 3 * kernels.WINDOWS_AT_ONCE // 2)) * 10.0 ** rng.integers(-6, 6, (2, 1))
    x_SN[1, rng.random(x_SN.shape[1]) < 0.1] = np.nan
    mean_SN, std_SN = kernels.mean(x_SN, span, 2), kernels.std(x_SN, span, 2)
    for s, n in [(0, span - 1), (0, 700), (0, 767), *((1, n) for n in range(span, 768, 7))]:
        known_N = x_SN[s, max(0, n + 1 - span) : n + 1]
        known_N = known_N[np.isfinite(known_N)]
        if len(known_N) >= 2:  # numpy adds up to 128 values in the same order
            assert mean_SN[s, n] == np.mean(known_N) and std_SN[s, n] == np.std(known_N, ddof=1)
        else:
            assert np.isnan(mean_SN[s, n]) and np.isnan(std_SN[s, n])


@pytest.mark.parametrize("values", [np.zeros(299), np.zeros((300, 1))])
def test_values_that_some_sessions_lack_are_refused(values):
    bars = make_bars(n_sessions=300, n_symbols=2)
    with pytest.raises(ValueError, match="a value for each of 300 sessions is needed, not"):
        Rows(bars, slice(0, 2), np.zeros(300)).on_days(values)


def test_the_mark_of_a_feature_is_that_of_no_other_one_and_forgives_rounding():
    marks = {name: mark_of(find(name)) for name in WIDE_BASES}
    for name, mark in marks.items():
        assert np.isfinite(mark).all() and len(mark) == 6 and 0.0 < mark[0] <= 1.0
        assert [other for other in marks if is_marked_alike(marks[other], mark)] == [name]
        feature = find(name)
        rounded = replace(feature, make=lambda rows, make=feature.make: make(rows).astype(np.float32))
        once = replace(feature, make=lambda rows, make=feature.make: _with_one_more(make(rows)))
        assert is_marked_alike(mark, mark_of(rounded)) and not is_marked_alike(mark, mark_of(once)), name


def test_a_small_change_of_a_feature_with_a_large_mean_is_seen_and_warnings_are_not_printed():
    with np.errstate(all="raise"):
        one, other = (mark_of(declared(lambda rows, k=k: 1.0 + k * np.log(rows.close_SN - 50.0))) for k in (1e-4, 9e-5))
        huge = mark_of(declared(lambda rows: rows.close_SN * 1e306))
    assert is_marked_alike(one, one) and not is_marked_alike(one, other)
    assert is_marked_alike(huge, huge) and not is_marked_alike(huge, [-number for number in huge])


def _with_one_more(values_SN: np.ndarray) -> np.ndarray:
    """One value is higher by a tenth of their standard deviation."""
    s, n = np.argwhere(np.isfinite(values_SN))[-1]
    values_SN = values_SN.astype(float)
    values_SN[s, n] += 0.1 * np.nanstd(values_SN)
    return values_SN
