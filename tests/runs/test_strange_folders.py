"""Run folders that a stranger wrote, or that are damaged: each ends in one line, whichever command reads it."""

import io
import json
import os
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from hfinference import load_model
from hftraining.core.errors import ConfigError, UserError
from hftraining.core.tensor_file import shapes_of
from hftraining.core.untrusted import YAML_MOST, read_json, read_yaml, refuse_links, yaml_text
from hftraining.experiment.best import overrides_of
from hftraining.experiment.compose import composed
from hftraining.experiment.config import load_config, typed_config
from hftraining.experiment.proof import prove_run
from hftraining.model.base import KINDS
from hftraining.model.config import ModelConfig, count_weights
from hftraining.model.folder import ModelFolderError
from hftraining.model.transformer import BarTransformer
from hftraining.model.tree_text import what_is_wrong
from hftraining.model.trees import fit_trees
from hftraining.runs.bar_digests import read_digests
from hftraining.runs.folder import find_runs, read_run
from hftraining.runs.frames import read_table
from hftraining.runs.record import read_manifest, read_metrics
from hftraining.training.checkpoint import Checkpoints
from tests.runs_of import edit_run_json, hashes
from tests.strangers import MOST_LINES, TEMPLATES, call, make_templates, tried

pytestmark = pytest.mark.slow  # attacks: many, and none of them is likely to come back by itself

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def templates(folder, tmp_path_factory) -> dict[str, Path]:
    return make_templates(folder, tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def copy_of(templates, tmp_path):
    """A copy of a template, to spoil."""

    def made(name: str) -> Path:
        source = templates[name]
        copy = tmp_path / "outputs" / source.parts[-3] / source.parts[-2] / source.name
        return Path(shutil.copytree(source, copy, ignore=shutil.ignore_patterns("plotly.min.js", "events.*")))

    return made


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_yaml(path: Path, name: str, value: object) -> None:
    values = yaml.safe_load(path.read_text())
    group, _, field = name.rpartition(".")
    (values[group] if group else values)[field] = value
    path.write_text(yaml.safe_dump(values))


def seal(folder: Path, name: str) -> None:
    config = next(path for path in (folder / "config.json", folder / "state.json") if path.exists())
    edit(config, sha256=json.loads(config.read_text())["sha256"] | {name: hashes(folder)[name]})


def ends_in_one_line(command: str, folder: Path, templates: dict[str, Path], part: str) -> None:
    started = time.process_time()
    code, _, err = call(command, folder, templates["base"], folder.parents[3])
    assert code == 2 and "Traceback" not in err and err.strip().count("\n") <= MOST_LINES, err
    assert part in err and time.process_time() - started < 5.0, err


# --- the named cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"threads": 1_000_000}, "threads"),
        ({"threads": "x"}, "threads"),
        ({"threads": 0}, "threads"),
        ({"seed": -1}, "seed"),
        ({"data": {"fingerprint": ["a"]}}, "data.fingerprint"),
        ({"data": None}, "it has no data"),
        ({"name": "../../x"}, "is not a plain name"),
        ({"name": "\x1b[2J"}, "is not printable"),
        ({"argv": "rm"}, "argv"),
        ({"versions": {"torch": [1]}}, "versions"),
    ],
)
def test_a_run_json_with_a_wrong_field_is_refused_with_the_fields_name(copy_of, changes, part):
    run = copy_of("begun")
    edit(run / "run.json", **changes)
    with pytest.raises(UserError, match=r"run\.json is damaged") as caught:
        read_manifest(run)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1,2]", "", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 200_000, '{"a": 1e999}'])
@pytest.mark.parametrize("name", ["run.json", "result.json", "model/config.json", "model/scaler.json"])
def test_a_json_file_of_another_shape_is_refused_in_one_line(copy_of, templates, name, text):
    run = copy_of("base")
    (run / name).write_text(text)
    ends_in_one_line("load_model" if name.startswith("model") else "report", run, templates, Path(name).name)


@pytest.mark.parametrize("digits", [5000, 50_000])
def test_a_number_of_many_digits_is_refused_and_not_calculated(tmp_path, digits):
    (tmp_path / "a.json").write_text(f'{{"a": {"9" * digits}}}')
    (tmp_path / "a.yaml").write_text(f"a: {'9' * digits}\nb: 1{':59' * digits}")
    for read, name in ((read_json, "a.json"), (read_yaml, "a.yaml")):
        started = time.process_time()
        with pytest.raises(UserError, match="is too l"):
            read(tmp_path / name)
        assert time.process_time() - started < 1.0


def test_report_says_in_one_line_which_byte_is_no_text(copy_of, templates):
    run = copy_of("base")
    for name in ("run.json", "config.yaml", "config_diff.yaml", "result.json"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(b"\xff\xfe\x00" + whole)
        ends_in_one_line("report", run, templates, f"{name} is damaged")
        (run / name).write_bytes(b"a: \x80" + whole)
        ends_in_one_line("report", run, templates, f"{name} is damaged")
        (run / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ({"hidden_size": 10**9}, "weights"),
        ({"num_layers": 10**6}, "weights"),
        ({"hidden_size": 32}, "weights"),
        ({"context": "x"}, "context"),
        ({"layers": 3}, "model.layers"),
    ],
)
def test_a_shape_that_the_weights_do_not_fill_is_refused_before_a_network_is_made(copy_of, monkeypatch, shape, part):
    model = copy_of("base") / "model"
    edit(model / "config.json", model=json.loads((model / "config.json").read_text())["model"] | shape)
    monkeypatch.setitem(KINDS, "transformer", None)  # which would fail otherwise
    with pytest.raises(ModelFolderError, match=part):
        load_model(model.parent)


def test_weights_are_counted_as_torch_counts_them():
    narrow = {"hidden_size": 16, "num_heads": 2}
    for shape in ({}, {**narrow, "cross_asset": True}, {"num_layers": 1}, {**narrow, "symbol_embedding": True}):
        config = ModelConfig(**shape)
        model = BarTransformer(config, 15, (1, 5), (0.1, 0.5, 0.9))
        model.seat([-1] * 7)
        assert sum(weight.numel() for weight in model.parameters()) == count_weights(config, 15, 6, n_symbols=7)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("model.hidden_size", 10**9, "hidden_size"),
        ("model.hidden_size", 65_536, "weights"),
        ("model.num_layers", 10**6, "num_layers"),
        ("training.threads", 10**6, "threads"),
        ("training.processes", 10**6, "processes"),
        ("training", {"batch_size": 60_000, "window": 60_000}, "bars"),
        ("evidence.null_draws", 10**12, "null_draws"),
        ("objective.quantiles", [0.5] * 1000, "entries"),
        ("name", "${oc.env:HOME}", "reference"),
        ("stocks.symbols", ["${oc.env:HOME}"], "reference"),
        ("stocks.path", "a\x1bb", "no text"),
        ("hydra", {"run": {"dir": "x"}}, "hydra.run.dir"),
        ("training.learnin_rate", 1.0, "did you mean training.learning_rate"),
        ("model", [1, 2], "model"),
    ],
)
def test_a_config_that_asks_for_too_much_or_for_more_than_values_is_refused(copy_of, name, value, part):
    run = copy_of("base")
    edit_yaml(run / "config.yaml", name, value)
    with pytest.raises(ConfigError, match=r"\S") as caught:
        load_config(run / "config.yaml")
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1, 1]\n" + "".join(f"a{n}: &x{n} [*x, *x]\n" for n in range(30)),
        "a: 1\na: 2\n",
        "<<: {a: 1}\n",
        "a: !!python/name:os.system\n",
        "a: !!binary aGk=\n",
        "? [1]\n: 2\n",
        "1: 2\n",
        "a: .nan\n",
        "a: " + "[" * 5000,
        "a: 'x",
        "a: \x07\n",
        "- 1\n",
        "a: 1\n--- \nb: 2\n",
        "#" * (YAML_MOST + 1),
    ],
)
def test_yaml_that_is_more_than_nested_plain_values_is_refused_at_once(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    started = time.process_time()
    with pytest.raises(UserError, match=r"a\.yaml") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value) and time.process_time() - started < 2.0


def test_configs_are_read_as_omegaconf_reads_them(templates, tmp_path):
    paths = [run / "config.yaml" for run in templates.values()]
    paths += sorted((ROOT / "tests" / "data").rglob("config*.yaml"))
    tricky = "a: 1e-3\nb: 2015-01-02\nc: 1_000\nd: 0x10\ne: 010\nf: yes\ng: ~\nh: 12:30:45\ni: .5\nj: '1e3'\nk: 1.\n"
    (tmp_path / "tricky.yaml").write_text(tricky)
    for path in (*paths, tmp_path / "tricky.yaml"):
        assert repr(read_yaml(path)) == repr(OmegaConf.to_container(OmegaConf.load(path)) or {}), path


@pytest.mark.parametrize(
    "text",
    ["2e812300", "12e3", "1_0e5", "017", "0x1f", "123", "1.5", ".inf", "null", "~", "yes", "2012-01-01", "1:30.5"],
)
def test_text_that_looks_like_something_else_is_written_so_that_it_is_read_as_text(tmp_path, text):
    """A signature of hexadecimal digits may be 2e812300, which OmegaConf reads as an infinite number."""
    values = {"text": text, text: [text, 3, 1e-5, 2e12, True, None]}
    (path := tmp_path / "a.yaml").write_text(yaml_text(values))
    assert repr(read_yaml(path)) == repr(values) == repr(OmegaConf.to_container(OmegaConf.load(path)))


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_stray_entries_hide_no_checkpoint(copy_of, templates, caplog):
    run = copy_of("begun")
    checkpoints = run / "checkpoints"
    (checkpoints / "step_abc").mkdir()
    (checkpoints / "step_00000005").write_text("no folder")
    (checkpoints / "step_-0000001").mkdir()
    assert Checkpoints(checkpoints).newest() == 4
    assert "step_abc is no checkpoint" in caplog.text
    code, out, err = call("resume", run, templates["base"], run.parents[3])
    assert code == 0 and "run: " in out, err


@pytest.mark.parametrize("text", ["[1,2]", "{}", '{"step": 4, "best_step": null, "sha256": {}}', "[" * 200_000])
def test_a_state_of_another_shape_is_a_damaged_checkpoint(copy_of, templates, text):
    run = copy_of("begun")
    (run / "checkpoints/step_00000004/state.json").write_text(text)
    assert Checkpoints(run / "checkpoints").newest() == 0


def test_a_state_cannot_name_files_elsewhere_or_another_step(copy_of):
    path = copy_of("begun") / "checkpoints/step_00000004/state.json"
    known = json.loads(path.read_text())
    for changes in (
        {"sha256": {"../../../run.json": "0" * 64} | known["sha256"]},
        {"step": 5},
        {"best_step": 99},
        {"best_value": "x"},
        {"skipped_steps": -1},
    ):
        path.write_text(json.dumps(known | changes))
        assert Checkpoints(path.parents[1]).newest() == 0, changes


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_tensors_of_another_model_with_a_right_checksum_are_refused_in_one_line(copy_of, templates, name):
    from safetensors.torch import load_file, save_file

    run = copy_of("begun")
    folder = run / "checkpoints/step_00000004"
    tensors = load_file(folder / name)
    for change in (
        {key: torch.zeros(3) for key in list(tensors)[:1]},
        {"x": torch.zeros(1)},
        {key: torch.full_like(value, float("nan")) for key, value in list(tensors.items())[:1]},
    ):
        save_file(tensors | change, folder / name)
        seal(folder, name)
        ends_in_one_line("resume", run, templates, "is not of this run")


# --- tables and arrays ------------------------------------------------------------------------------------------------


def equity(**changes) -> pd.DataFrame:
    days = pd.to_datetime(["2020-01-02", "2020-01-03"])
    columns = {"window": "valid", "date": days, "equity": 1.0, "buy_and_hold": 1.0} | changes
    return pd.DataFrame(columns, index=[0, 1])


@pytest.mark.parametrize(
    "changes",
    [
        {"equity": "x"},
        {"equity": np.inf},
        {"equity": 1e300},
        {"window": "future"},
        {"window": "x" * 1000},
        {"window": 1},
        {"date": "2020-01-02"},
        {"date": pd.NaT},
        {"equity": [[1.0], [2.0]]},
    ],
)
def test_a_table_with_other_values_than_ours_is_refused_in_one_line(tmp_path, changes):
    equity(**changes).to_parquet(tmp_path / "equity.parquet")
    with pytest.raises(UserError, match=r"equity\.parquet is damaged"):
        read_table(tmp_path, "equity.parquet")


def test_a_table_reads_as_pandas_reads_it(templates):
    for run in (templates["base"], templates["tune"]):
        for name in ("equity.parquet", "trades.parquet", "null_band.parquet"):
            pd.testing.assert_frame_equal(read_table(run, name), pd.read_parquet(run / name))


def test_one_long_text_in_many_rows_is_not_multiplied(tmp_path):
    rows = 900_000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 100_000]))
    columns = {"window": text, "date": pa.array(np.zeros(rows, "datetime64[ms]"))}
    columns |= {name: pa.array(np.ones(rows)) for name in ("equity", "buy_and_hold")}
    pq.write_table(pa.table(columns), tmp_path / "equity.parquet", use_dictionary=["window"])
    pa_before = pa.total_allocated_bytes()
    with pytest.raises(UserError, match=r"equity\.parquet is damaged"):
        read_table(tmp_path, "equity.parquet")
    assert pa.total_allocated_bytes() - pa_before < 2**28


@pytest.mark.parametrize("name", ["equity.parquet", "trades.parquet", "bars.npz"])
def test_wherever_a_byte_of_a_table_is_another_it_is_read_or_refused(copy_of, name):
    path = copy_of("base") / name
    whole = path.read_bytes()
    path.unlink()  # which other runs may share
    rng = np.random.default_rng(0)
    for _ in range(80):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            content[place] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            read_digests(path.parent) if name == "bars.npz" else read_table(path.parent, name)
        except UserError as error:
            assert "\n" not in str(error) and name in str(error)


def test_a_table_with_too_many_rows_is_refused_by_its_footer(tmp_path):
    table = pa.table({name: pa.nulls(3_000_000) for name in ("window", "date", "equity", "buy_and_hold")})
    pq.write_table(table, tmp_path / "equity.parquet")
    with pytest.raises(UserError, match="is larger than any of ours"):
        read_table(tmp_path, "equity.parquet")


def test_an_archive_of_zeros_or_of_claims_is_refused_before_it_is_unpacked(copy_of):
    run = copy_of("base")
    with np.load(run / "bars.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}

    def write(name: str, content: bytes) -> None:
        with zipfile.ZipFile(run / "bars.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for other, array in arrays.items():
                file = io.BytesIO()
                np.save(file, array)
                archive.writestr(f"{other}.npy", content if other == name else file.getvalue())

    claims = io.BytesIO()
    np.lib.format.write_array_header_1_0(claims, {"descr": "<u4", "fortran_order": False, "shape": (10**6, 10**6)})
    objects = io.BytesIO()
    np.save(objects, np.array([print], dtype=object), allow_pickle=True)
    for content in (b"\0" * (600 * 2**20), claims.getvalue(), objects.getvalue(), b"", b"\x93NUMPY\x09\x00"):
        write("digest_TS", content)
        with pytest.raises(UserError, match=r"bars\.npz is damaged"):
            read_digests(run)
    write("", b"")
    assert read_digests(run) is not None


def test_a_tensor_file_that_claims_more_than_it_holds_is_refused_by_its_header(tmp_path):
    def write(header: object, body: bytes = b"", length: int | None = None) -> Path:
        text = json.dumps(header).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
        return path

    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    assert shapes_of(write({"a": entry}, b"\0" * 8)) == {"a": ("float32", (2,))}
    for header in (
        {"a": entry | {"shape": [2**40, 2**40]}},
        {"a": entry | {"data_offsets": [0, 2**50], "shape": [2**48]}},
        {"a": entry | {"dtype": "F99"}},
        {"a": entry | {"shape": [-1]}},
        {"a": entry | {"shape": [True, 2]}},
        {"a": 1},
        {"a": entry, "b": entry},
        [1],
    ):
        with pytest.raises(UserError, match=r"x\.safetensors is damaged"):
            shapes_of(write(header, b"\0" * 8))
    with pytest.raises(UserError, match="a header of"):
        shapes_of(write({}, length=2**60))


def test_metrics_hold_steps_and_numbers_alone(copy_of):
    path = copy_of("base") / "metrics.jsonl"
    good = path.read_text()
    for line in (
        '{"step": "1"}',
        '{"step": -1}',
        '{"step": 1.5}',
        "[1]",
        '{"step": 1, "a": "x"}',
        '{"step": 1, "a": [1]}',
    ):
        path.write_text(line + "\n" + good)
        with pytest.raises(UserError, match="line 1 is not a logged step"):
            read_metrics(path.parent)
    path.write_bytes(good.encode() + b'{"step": 9, "a')
    assert [row["step"] for row in read_metrics(path.parent)] == [json.loads(x)["step"] for x in good.splitlines()]


# --- trees ------------------------------------------------------------------------------------------------------------


def test_the_text_of_trees_is_checked_before_lightgbm_reads_it():
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e .[baselines]")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    text = fit_trees(x, x[:, :1], np.array([3]), seed=0).boosters_H[0].model_to_string()
    assert what_is_wrong(text, 4, 100, 8) == ""
    constant = fit_trees(x, np.zeros((500, 1)), np.array([3]), seed=0).boosters_H[0].model_to_string()
    assert what_is_wrong(constant, 4, 100, 8) == ""
    for old, new in (
        ("tree\n", "forest\n"),
        ("left_child=1 ", "left_child=0 "),  # its own child: a walk without an end
        ("left_child=1 ", "left_child=9 "),
        ("num_leaves=8", "num_leaves=2000000000"),
        ("num_leaves=8", "num_leaves=7"),
        ("max_feature_idx=3", "max_feature_idx=9999"),
        ("split_feature=", "split_feature=9"),
        ("tree_sizes=", "tree_sizes=9"),
        ("tree_sizes=", "tree_sizes=" + "9" * 5000 + " "),
        ("decision_type=2", "decision_type=1"),
        ("is_linear=0", "is_linear=1"),
        ("threshold=", "threshold=nan "),
        ("objective=regression", "objective=multiclass num_class:1000000"),
        ("end of trees", "end of trees\n[data: /etc/passwd\n"),
        ("pandas_categorical:null", "pandas_categorical:[[1]]"),
    ):
        assert old in text and what_is_wrong(text.replace(old, new, 1), 4, 100, 8), (old, new)


# --- links ------------------------------------------------------------------------------------------------------------

LINKED = ("config.yaml", "run.json", "metrics.jsonl", "train.log", "checkpoints", "checkpoints/step_00000004", "model")


@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_run_folder_is_refused_and_its_target_keeps_its_bytes(copy_of, templates, tmp_path, name):
    run = copy_of("begun" if name != "model" else "base")
    target = tmp_path / "elsewhere"
    shutil.move(run / name, target)
    (run / name).symlink_to(target)
    before = hashes(target) if target.is_dir() else target.read_bytes()
    for command in (
        ("resume", "report") if name != "model" else ("load_model", "init_from", "replay", "leaks", "compare")
    ):
        ends_in_one_line(command, run, templates, "is a symbolic link")
    assert (hashes(target) if target.is_dir() else target.read_bytes()) == before


def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_refused_without_waiting(copy_of, templates):
    for make, part in ((os.mkfifo, "is a pipe"), (os.mkdir, "is a folder")):
        run = copy_of("base")
        (run / "result.json").unlink()
        make(run / "result.json")
        ends_in_one_line("report", run, templates, part)
        shutil.rmtree(run)


def test_the_named_folder_may_be_a_link_and_hard_links_are_files(copy_of, tmp_path):
    run = copy_of("base")
    os.link(run / "config.yaml", run / "again.yaml")
    (tmp_path / "link").symlink_to(run)
    refuse_links(tmp_path / "link")
    assert read_run(tmp_path / "link").name == "tiny-folder-mixed"


def test_runs_are_found_without_following_links_however_they_loop(copy_of, tmp_path):
    run = copy_of("base")
    for name in ("a", "b", "c"):
        (tmp_path / "outputs" / name).symlink_to(tmp_path / "outputs")
    started = time.process_time()
    assert find_runs([tmp_path / "outputs"]) == [run]
    assert find_runs([f"{tmp_path}/outputs/**"]) == [run]
    assert time.process_time() - started < 2.0


# --- the best of a sweep ----------------------------------------------------------------------------------------------


def best(tmp_path: Path, text: str) -> str:
    (tmp_path / "best").mkdir(exist_ok=True)
    (tmp_path / "best" / "knee.yaml").write_text(text)
    return f"+best={tmp_path}/best/knee.yaml"


def test_a_best_file_is_the_overrides_that_it_says(tmp_path):
    text = (
        "# @package _global_\nmodel: {hidden_size: 16, num_heads: 2}\ntraining: {learning_rate: 1.0e-05, methods: []}\n"
        "stocks: {symbols: ['A,B', 'null', NO], start: '2011-01-03', path: '/x y/{z}', source: files}\nseed: 3\n"
    )
    config = typed_config(composed(overrides_of(best(tmp_path, text))))
    assert (config.model.hidden_size, config.training.learning_rate, config.seed) == (16, 1e-05, 3)
    assert config.stocks.symbols[:2] == ["A,B", "null"] and config.stocks.path == "/x y/{z}"
    assert config.stocks.start == "2011-01-03" and overrides_of(best(tmp_path, "# nothing\n")) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("hydra: {callbacks: {e: {_target_: os.mkdir}}}", "hydra.callbacks.e._target_"),
        ("hydra: {run: {dir: /tmp/x}}", "hydra.run.dir"),
        ("defaults: [/model: large]", "defaults"),
        ("model: {_target_: os.mkdir}", "model._target_"),
        ("seed: ${oc.env:HOME}", "reference"),
        ("name: x", "says where a run goes"),
        ("output_dir: /tmp/x", "says where a run goes"),
        ("resume: /tmp/x", "says where a run goes"),
        ("evidence: {ledger: /tmp/x}", "says where a run goes"),
        ("a: &a [*a]", "aliases"),
        ("seed: 1\nseed: 2", "there twice"),
        ("seed: !!python/name:os.system", "tags"),
        ("model: {hidden_size: 1000000000}", "hidden_size"),
        ("a: 'x", "line"),
    ],
)
def test_a_best_file_of_more_than_fields_is_refused_in_one_line(tmp_path, text, part):
    with pytest.raises(UserError, match=r"knee\.yaml") as caught:
        overrides_of(best(tmp_path, text))
    assert part in str(caught.value) and "\n" not in str(caught.value)


# --- whatever else ----------------------------------------------------------------------------------------------------


def test_a_model_of_another_task_than_its_config_is_refused_by_the_leak_proof(copy_of, templates):
    run = copy_of("base")
    edit_yaml(run / "config.yaml", "objective.horizons", [1, 2, 3])
    with pytest.raises(UserError, match=r"are not of one run: objective\.horizons"):
        prove_run(run, 1)


@pytest.mark.parametrize("part", range(8))
def test_mutated_folders_end_in_few_lines_whatever_reads_them(templates, tmp_path, part):
    for seed in range(3 * part, 3 * part + 3):
        found = tried(seed, templates, tmp_path)
        assert not found.wrong, found


@pytest.mark.slow
@pytest.mark.long
def test_three_hundred_mutated_folders_end_in_few_lines(templates, tmp_path):
    wrong = [found for seed in range(24, 120) if (found := tried(seed, templates, tmp_path)).wrong]
    assert not wrong, wrong[:3]
    assert len(TEMPLATES) == 7


def test_run_json_is_edited_here_as_everywhere(copy_of):
    run = copy_of("base")
    edit_run_json(run, lambda known: known.update(further={"of": "another version"}))
    assert read_manifest(run)["further"] == {"of": "another version"}
