"""The composer: it gives the same config as train.py from any caller, and disturbs no other Hydra."""

import math
import multiprocessing
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from hftraining.core.errors import ConfigError
from hftraining.experiment.compose import Composer, as_override, composed, options_of, override
from hftraining.experiment.config import CONF, typed_config
from tests.commands import train
from tests.compose import compose_config
from tests.slowly import mostly_slow

LINES = (
    ["model=large", "stocks=tech10", "training.max_steps=2"],
    ["seed=4", "training.learning_rate=3e-4", "objective=profit", "stocks.symbols=[A,B]"],
    ["stocks=single", "profit_tracker=frictionless", "evidence.baselines=[trend]", "name=x"],
    ["experiment=tiny_model", "model.hidden_size=16", "training.max_steps=7", "training=finetune", "init_from=a"],
)


@pytest.mark.parametrize("overrides", mostly_slow(LINES, quick=(0,)), ids=" ".join)
def test_the_composer_composes_the_same_as_train_py(tmp_path, overrides):
    code, out, err = train(tmp_path, *overrides, "--cfg", "job")
    assert code == 0, err
    values = yaml.safe_load(out)
    assert values.pop("search") is None
    assert compose_config(*overrides) == typed_config(values)


def test_an_option_composed_alone_gives_only_the_values_of_its_file():
    finetune = yaml.safe_load((CONF / "training" / "finetune.yaml").read_text())
    assert composed(config_name="training/finetune") == {"training": finetune | {"learning_rate": 1e-4}}
    assert composed(config_name="objective/profit") == yaml.safe_load((CONF / "objective/profit.yaml").read_text())
    assert options_of("model") == sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
    assert options_of("modl") == []


@pytest.mark.slow
def test_the_hydra_of_another_application_stays_as_it_was(tmp_path):
    (tmp_path / "config.yaml").write_text("theirs: 3\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2", job_name="theirs"):
        instance, hydra = GlobalHydra.instance(), GlobalHydra.instance().hydra
        assert compose_config("model=tiny").model.hidden_size == 32
        with pytest.raises(ConfigError):
            composed(["model=smal"])
        assert GlobalHydra.instance() is instance and instance.hydra is hydra
        assert compose("config", ["theirs=4"]) == {"theirs": 4}
    assert not GlobalHydra.instance().is_initialized()


def test_a_hydra_that_already_reads_our_configs_is_used_with_all_its_folders(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("hidden_size: 8\nnum_heads: 1\n")
    path = create_config_search_path(str(CONF))
    path.prepend("command-line", f"file://{tmp_path}")  # as --config-dir does
    try:
        hydra = Hydra.create_main_hydra2("train", path)
        assert compose_config("model=mine").model.hidden_size == 8 and "mine" in options_of("model")
        assert GlobalHydra.instance().hydra is hydra
    finally:
        GlobalHydra.instance().clear()
    assert compose_config(f"hydra.searchpath=[file://{tmp_path}]", "model=mine").model.hidden_size == 8
    with pytest.raises(ConfigError, match="model=mine: there is no such option"):
        compose_config("model=mine")


def _composed_there(queue) -> None:
    queue.put((compose_config(*LINES[1]), "torch" in sys.modules))


@pytest.mark.slow
def test_the_composer_works_in_a_spawned_process_and_without_torch():
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    process = spawn.Process(target=_composed_there, args=(queue,))
    process.start()
    config, heavy = queue.get(timeout=60)
    process.join()
    assert config == compose_config(*LINES[1]) and not heavy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model=smal", r"model=smal: there is no such option; did you mean small\? \(there are base, "),
        ("training.learnin_rate=3", r"training.learnin_rate: there is no such field; did you mean training.learning_"),
        ("learning_rate=3", "learning_rate: there is no such field; did you mean training.learning_rate"),
        ("training.learning_rate=abc", "training.learning_rate: Value 'abc' of type 'str' could not be converted"),
        ("training", "Error parsing override 'training' missing EQUAL"),
        ("model=tiny,small", "several values need -m"),
        ("stocks.symbols=AAPL,MSFT", r"or brackets if they are one list: stocks.symbols=\[AAPL,MSFT\]"),
        ("name=${nowhere}", "nowhere"),
        ("resume=", "resume= is empty: give a value, or leave it out"),
        ("stocks=''", "stocks= is empty: give a value, or leave it out"),
        (" ", r"an argument is empty: is a variable of the shell not set\?"),
        ("stocks.symbols=[]", "stocks.symbols= names no stock: name some, or leave it out for all"),
        ("stocks.symbols=['', ]", "stocks.symbols= names no stock"),
    ],
)
def test_what_cannot_be_composed_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        composed([text])
    assert "\n" not in str(refused.value)


def test_hydra_composes_once_for_each_choice_of_groups_and_interpolations_follow_the_point(monkeypatch):
    composer, calls = Composer(["training.batch_size=8"]), []
    monkeypatch.setattr("hftraining.experiment.compose.compose", lambda *args: calls.append(args) or compose(*args))
    for model in ("tiny", "small", "tiny"):
        for dropout in (0.1, 0.3):
            point = {"model": model, "model.dropout": dropout, "stocks.name": f"s{dropout}"}
            config = composer.config(point)
            assert (config.model.dropout, config.name) == (dropout, f"{model}-s{dropout}-mixed")
            assert composer.overrides(point)[1:3] == [f"model={model}", f"model.dropout={dropout}"]
    assert len(calls) == 2


# --- values as Hydra reads them ---------------------------------------------------------------------------------------

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))),
    st.sampled_from(
        ["null", "True", "nan", "inf", "3", ".5", "1e3", "", " ", "my bars/x, y", "it's", '"', "\\", "a\\'", "[a]"]
    ),
    st.sampled_from(["a=b", "a,b", "{a:1}", "^GSPC", "BRK.B", "/bars (1)", "choice(1,2)", "-x", "~", "$", "a:b"]),
)


@settings(deadline=None)
@given(st.recursive(PLAIN, lambda item: st.lists(item, max_size=4), max_leaves=8))
@pytest.mark.slow
def test_a_value_comes_back_from_its_override_as_it_was(value):
    parsed = OverridesParser.create().parse_override(override("stocks.path", value))
    assert not parsed.is_sweep_override()
    assert _same(parsed.value(), value)


def _same(read, written) -> bool:
    if isinstance(written, list):
        return len(read) == len(written) and all(map(_same, read, written))
    return type(read) is type(written) and read == written


def test_nan_a_dict_and_a_tuple_are_written_too():
    def read(value):
        return OverridesParser.create().parse_override(override("a", value)).value()

    assert math.isnan(read(math.nan)) and read(("a", 1)) == ["a", 1]
    assert read({"a": 1, "b": ["x y", None]}) == {"a": 1, "b": ["x y", None]}


def test_a_plain_word_or_path_stays_as_it_is():
    for word in ("tiny", "outputs/base", "_x", "BRK.B", "tech10", "ON", "a-b"):
        assert as_override(word) == word


def test_a_portfolio_that_is_named_beside_objective_profit_is_refused_not_replaced():
    assert typed_config(composed(["objective=profit"])).portfolio.kind == "head"
    with pytest.raises(ConfigError, match=r"portfolio\.kind=tilt trades forecasts"):
        typed_config(composed(["objective=profit", "portfolio=tilt"]))
