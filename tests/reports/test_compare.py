"""Comparisons: exactly the differences between runs, and whether their effect is more than noise."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hftraining.__main__ import main
from hftraining.evidence.bootstrap import sharpe_difference
from hftraining.evidence.seeds import mean_difference, power_of_t_test, seeds_needed
from hftraining.reports.compare import compare
from hftraining.reports.compare_words import beside, headline, legend, money_sentences, sentences
from hftraining.reports.deltas import group_label, sets_apart
from hftraining.runs.quantities import Estimate
from tests.browser import drawn, found_in, laid_out, needs_browser
from tests.effects import EFFECT
from tests.runs_of import QUICK, begun, edit_run_json, folders, own_copy, run, sharpe
from tests.slowly import mostly_slow

HOSTILE = "<script>alert(1)</script>"


def fields_of(*places) -> dict[str, list]:
    rows = compare(places).as_json()["config"]
    return {row["field"]: list(row["values"].values()) for row in rows}


@pytest.mark.parametrize(
    "override", mostly_slow([*EFFECT, "output_dir=elsewhere", "profit_tracker.report_every=7"], quick=range(0, 99, 20))
)
@pytest.mark.slow
def test_a_comparison_shows_exactly_the_override_that_two_runs_differ_in(override, tmp_path, capsys):
    *kind, _ = override.split()  # of the portfolio that the field belongs to: both runs have it
    base = (*QUICK, "stocks.path=bars", *kind)
    one, other = begun(tmp_path, *base), begun(tmp_path, *base, *override.split())
    expected = {part.split("=")[0] for part in override.split()} - {part.split("=")[0] for part in kind}
    assert set(fields_of(one, other)) == expected
    assert main(["compare", str(one), str(other)]) == 0
    text = capsys.readouterr().out
    table = text.split("config")[1].split("\n\n")[0]
    printed = re.findall(r"^ ?([a-z_]+(?:\.[a-z_]+)?) ", table, re.MULTILINE)
    assert set(printed) == expected
    page = Path(text.split("page: ")[1].strip()).read_text()
    (section,) = re.findall(r'<section id="config">.*?</section>', page, re.DOTALL)
    assert set(re.findall(r'<th scope="row"><code>([^<]+)</code>', section)) == expected


def test_a_comparison_of_equal_runs_shows_no_difference(tmp_path):
    one, other = begun(tmp_path), begun(tmp_path)
    found = compare([one, other]).as_json()
    assert found["config"] == [] and found["environment"] == [] and found["data"]["same"] and found["code"]["same"]
    assert len(found["groups"]) == 1


def test_a_choice_of_a_config_group_has_its_own_row_above_the_fields_it_changed(tmp_path):
    one, other = begun(tmp_path, "model=tiny"), begun(tmp_path, "model=small")
    rows = compare([one, other]).as_json()["config"]
    assert [(row["field"], row["chosen_by"]) for row in rows] == [
        ("model", None),
        ("model.hidden_size", "model"),
        ("model.num_layers", "model"),
        ("model.num_heads", "model"),
        ("model.context", "model"),
    ]
    assert rows[0]["values"] == {"A": "tiny", "B": "small"}


def apart(*configs: tuple[str, ...], into: Path) -> list[list[str]]:
    comparison = compare([begun(into, *overrides) for overrides in configs])
    return [sets_apart(group, comparison.config) for group in comparison.groups]


def test_a_choice_of_a_config_group_replaces_its_fields_in_the_overrides_that_set_runs_apart(tmp_path):
    choices = ("model=tiny",), ("model=small",), ("model=ridge",), ("model=lightgbm",)
    assert apart(*choices, into=tmp_path) == [[*choice] for choice in choices]


@pytest.mark.slow
def test_a_field_changed_in_addition_to_a_group_choice_sets_runs_apart_too(tmp_path):
    both = [(f"model={model}", f"model.dropout={dropout}") for model in ("tiny", "small") for dropout in (0.3, 0.4)]
    assert apart(*both, into=tmp_path) == [[*overrides] for overrides in both]


@pytest.mark.slow
def test_the_json_of_a_comparison_has_the_keys_that_scripts_read(outputs):
    found = compare([outputs]).as_json()
    parts = "runs groups config data code environment losses_differ_in differences"
    assert list(found) == parts.split()
    run = "label group folder name kind signature seed started finished money verdict alarms metrics"
    assert (
        list(found["runs"][0]) == run.split() and list(found["groups"][0]) == "label title seeds runs metrics".split()
    )
    assert set(found["groups"][0]["metrics"]["eval.loss"]) == {"mean", "sd", "n"}
    assert list(found["config"][0]) == "field values counts chosen_by".split()
    assert (list(found["data"]), list(found["code"])) == (["same", "rows", "bars"], ["same", "rows"])
    difference = found["differences"][0]
    assert list(difference) == "group against sharpe seeds".split()
    assert list(difference["sharpe"]["test"]) == "value low high days told_apart enough_days".split()
    assert list(difference["seeds"]["eval.loss"]) == "value low high seeds told_apart seeds_needed".split()


def test_a_field_that_cannot_change_a_number_is_marked_and_makes_no_group(tmp_path):
    one, other = begun(tmp_path), begun(tmp_path, "training.log_every=1")
    found = compare([one, other]).as_json()
    assert len(found["groups"]) == 1 and found["config"][0]["counts"] is False
    assert found["config"][0]["values"] == {"A": {"each": [10, 1]}}


@pytest.mark.slow
def test_runs_that_differ_by_seed_alone_form_one_group_and_a_repetition_counts_once(outputs):
    found = compare([outputs]).as_json()
    fast, slow = found["groups"]
    assert (fast["title"], slow["title"]) == ("fast", "tiny-folder-mixed")
    assert (slow["seeds"], slow["runs"]) == ([1, 2, 3], 4)
    values = [sharpe(path) for path in folders(outputs, "tiny-folder-mixed")[:3]]
    metric = slow["metrics"]["valid.profit.sharpe_ratio"]
    assert metric["n"] == 3
    assert metric["mean"] == pytest.approx(np.mean(values)) and metric["sd"] == pytest.approx(np.std(values, ddof=1))
    rows = {row["field"]: row["values"] for row in found["config"]}
    assert set(rows) == {"training.learning_rate", "seed", "name"}
    assert rows["training.learning_rate"] == {"A": 0.02, "B": 3e-4} and rows["seed"]["A"] == {"each": [1, 2, 3]}


def daily(path: Path, window: str) -> pd.Series:
    frame = pd.read_parquet(path / "equity.parquet").query("window == @window").set_index("date")
    return frame["equity"].pct_change().iloc[1:]


@pytest.mark.slow
@pytest.mark.parametrize("window", ["valid", "test"])
def test_the_interval_is_the_paired_bootstrap_of_both_runs_daily_returns(outputs, window):
    one, other = folders(outputs, "tiny-folder-mixed")[0], folders(outputs, "fast")[0]
    found = compare([one, other]).as_json()["differences"][0]["sharpe"][window]
    expected = sharpe_difference(daily(other, window).to_numpy(), daily(one, window).to_numpy(), 2000, 0)
    assert (found["value"], found["low"], found["high"]) == pytest.approx(dataclasses.astuple(expected), rel=1e-6)
    assert found["value"] == pytest.approx(sharpe(other, window) - sharpe(one, window), abs=1e-6)
    assert found["days"] == len(daily(one, window))


@pytest.mark.slow
def test_groups_are_compared_by_the_mean_daily_returns_of_their_seeds_and_by_seeds(outputs):
    groups = [folders(outputs, name)[:3] for name in ("tiny-folder-mixed", "fast")]
    found = compare([*groups[0], *groups[1]]).as_json()["differences"][0]
    slow, fast = (np.mean([daily(path, "valid") for path in group], axis=0) for group in groups)
    expected = sharpe_difference(fast, slow, 2000, 0)
    assert found["sharpe"]["valid"]["low"] == pytest.approx(expected.low, rel=1e-6)
    seeds = found["seeds"]["valid.profit.sharpe_ratio"]
    slow_n, fast_n = ([sharpe(path) for path in group] for group in groups)
    test = stats.ttest_ind(fast_n, slow_n, equal_var=False).confidence_interval(0.95)
    assert (seeds["low"], seeds["high"]) == pytest.approx((test.low, test.high))
    assert seeds["seeds"] == [3, 3] and seeds["seeds_needed"] == seeds_needed(fast_n, slow_n)


@pytest.mark.slow
def test_two_seeds_of_one_config_are_compared_as_runs(outputs):
    comparison = compare(folders(outputs, "fast")[:2])
    found = comparison.as_json()
    assert found["differences"][0]["group"] == "A2" and len(found["groups"]) == 1
    said = "2 seeds of one config: a validation Sharpe ratio of .* and a test Sharpe ratio of "
    assert re.match(said, headline(comparison))


@pytest.mark.slow
def test_the_headline_says_that_a_run_was_repeated(outputs):
    paths = folders(outputs, "tiny-folder-mixed")
    comparison = compare([paths[0], paths[3]])
    assert headline(comparison) == "The same run, repeated"
    for days in ("validation", "test"):
        assert f"On the {days} days A2 earned exactly what A1 did." in sentences(comparison)


def with_curves(run: Path, like: Path, **daily_gain: float) -> None:
    """Give a run the daily returns of another one, and a gain a day on top in some periods."""
    frame = pd.read_parquet(like / "equity.parquet")
    for window, gain in daily_gain.items():
        rows = frame["window"] == window
        frame.loc[rows, "equity"] *= (1.0 + gain) ** np.arange(rows.sum())
    frame.to_parquet(run / "equity.parquet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("valid", "test", "title"),
    [
        (
            0.0,
            0.0,
            "On the validation days and on the test days, B's Sharpe ratio is higher by N [N, N] than A's, which noise "
            "alone could explain",
        ),
        (
            0.0,
            -0.05,
            "On the validation days, B's Sharpe ratio is higher by N [N, N] than A's, which noise alone could explain; "
            "on the test days, B's Sharpe ratio is lower by N [N, N] than A's, by more than noise",
        ),
        (
            0.05,
            -0.05,
            "On the validation days, B's Sharpe ratio is higher by N [N, N] than A's, by more than noise; on the test "
            "days, B's Sharpe ratio is lower by N [N, N] than A's, by more than noise",
        ),
    ],
)
def test_the_title_states_direction_and_size_and_speaks_of_the_test_days_too(outputs, tmp_path, valid, test, title):
    one, other = folders(outputs, "tiny-folder-mixed")[0], own_copy(folders(outputs, "fast")[0], tmp_path / "other")
    with_curves(other, like=one, valid=valid, test=test)
    comparison = compare([one, other])
    assert re.sub(r"-?\d+\.\d\d", "N", headline(comparison)) == title
    assert legend(comparison) == "A = tiny-folder-mixed; B = fast."
    names = ("fast", "tiny-folder-mixed")
    said = [headline(comparison), *money_sentences(comparison), *sentences(comparison)]
    assert not [line for line in said if any(name in line for name in names)]  # letters alone


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Estimate(0.42, 0.1, 0.8), "higher by 0.42 [0.10, 0.80]"),
        (Estimate(-0.42, -0.8, -0.1), "lower by 0.42 [0.10, 0.80]"),  # the interval of how much lower
        (Estimate(-0.05, -0.3, 0.2), "lower by 0.05 [-0.20, 0.30]"),
        (Estimate(0.1), "higher by 0.10"),
    ],
)
def test_a_difference_is_read_in_its_own_direction(found, words):
    assert beside(found) == words


@pytest.mark.slow
def test_a_comparison_begins_with_the_money_and_the_verdict_of_each_group(outputs):
    comparison = compare([outputs])
    first, second = money_sentences(comparison)
    results = {name: [json.loads((path / "result.json").read_text()) for path in folders(outputs, name)[:3]]
               for name in ("fast", "tiny-folder-mixed")}  # fmt: skip
    for label, line, (name, found) in zip("AB", (first, second), results.items(), strict=True):
        ours = np.mean([result["test"]["profit"]["total_return"] for result in found])
        held = np.mean([result["test"]["baselines"]["buy_and_hold"]["total_return"] for result in found])
        did, holding = (
            f"{'earned' if value > 0 else 'lost'} {abs(value):.1%}".replace("%", " %") for value in (ours, held)
        )
        assert f"{label} = {name}" in legend(comparison)
        assert line.startswith(f"{label}: It {did}, where holding {holding} (mean of 3 seeds; ") and " x " in line
        assert found[0]["test"]["first"] in line


@pytest.mark.slow
def test_alarms_of_the_runs_stand_on_the_page_and_on_the_console(outputs, tmp_path, capsys):
    one, other = folders(outputs, "tiny-folder-mixed")[0], own_copy(folders(outputs, "fast")[0], tmp_path / "other")
    result = json.loads((other / "result.json").read_text())
    result["valid"]["alarms"] = ["it is too good"]
    (other / "result.json").write_text(json.dumps(result))
    assert main(["compare", str(one), str(other), "--to", str(tmp_path / "page")]) == 0
    out = capsys.readouterr().out
    assert "ALARM: B1: too good to be true: a leak until proven otherwise" in out
    assert out.index(" where holding ") < out.index("ALARM")
    page = (tmp_path / "page" / "compare.html").read_text()
    assert "<li>B1: too good to be true" in page and 'class="whole">B1 <span class="mark">(!)</span>' in page
    assert page.index(" where holding ") < page.index("<li>B1: too good")


# Power 0.80 at a two-sided level of 0.05, as in Cohen (1988), table 2.4.1.
@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17), (1.2, 12)])
def test_the_number_of_seeds_needed_agrees_with_cohens_table(effect, n):
    a = np.array([1.0, -1.0])
    assert seeds_needed(a + effect * np.sqrt(2), a) == n


def test_the_power_agrees_with_ten_thousand_simulated_tests():
    rng = np.random.default_rng(0)
    found = stats.ttest_ind(rng.normal(0, 1, (10_000, 12)), rng.normal(0.9, 1, (10_000, 12)), axis=1).pvalue < 0.05
    assert power_of_t_test(0.9, 12) == pytest.approx(found.mean(), abs=0.015)


def test_the_number_of_seeds_needed_is_none_where_no_number_would_do():
    assert seeds_needed([1.0], [2.0, 3.0]) is None
    assert seeds_needed([1.0, 2.0], [1.0, 2.0]) is None
    assert seeds_needed([1.0, 1.0], [2.0, 2.0]) is None
    assert seeds_needed([1.0, 2.0], [1.0, 2.0 + 1e-9]) is None
    assert np.isnan(mean_difference([1.0], [2.0, 3.0]).low) and np.isnan(mean_difference([], [1.0]).value)


@pytest.mark.slow
def test_changed_bars_are_listed_by_symbol_and_day(folder, outputs, tmp_path):
    shutil.copytree(folder, tmp_path / "bars")
    frame = pd.read_csv(tmp_path / "bars" / "S2.csv")
    frame.loc[77, "volume"] += 1
    frame.to_csv(tmp_path / "bars" / "S2.csv", index=False)
    other = Path(run(tmp_path / "bars", tmp_path)["folder"])
    comparison = compare([folders(outputs, "tiny-folder-mixed")[0], other])
    found = comparison.as_json()
    assert found["data"]["same"] is False
    assert found["data"]["bars"] == {"B": [f"S2: {frame['date'].iloc[77]} changed"]}
    assert any("They saw other bars" in line for line in sentences(comparison))


def test_other_code_makes_another_group_and_code_and_environment_are_listed(tmp_path):
    one, other = begun(tmp_path), begun(tmp_path)

    def change(known):
        known["code"] |= {"digest": "0" * 16, "commit": "c" * 40, "dirty": True}
        known["versions"]["numpy"] = "1.0"
        known["cpu"]["flags"] = ["avx2"]

    edit_run_json(other, change)
    (other / "code.patch").write_text("diff --git a/hftraining/a.py b/hftraining/a.py\n+1\n")
    comparison = compare([one, other])
    found = comparison.as_json()
    assert len(found["groups"]) == 2 and found["config"] == []
    rows = {row["field"]: row["values"] for row in found["code"]["rows"]}
    assert rows["Digest of the sources"]["B"] == "0" * 16 and rows["Uncommitted changes"]["B"] == "hftraining/a.py"
    assert {row["field"] for row in found["environment"]} == {"versions.numpy", "cpu.flags"}
    assert any("They ran other code" in line for line in sentences(comparison))


@pytest.mark.slow
def test_a_comparison_warns_of_losses_that_measure_different_things(tmp_path):
    task = ("objective.relative=mean", "objective.loss=mse", "objective.horizons=[1,5]")
    for override in (*task, "profit_tracker.lag=2", "objective=profit"):
        found = compare([begun(tmp_path), begun(tmp_path, override)]).as_json()
        assert found["losses_differ_in"], override
    assert compare([begun(tmp_path), begun(tmp_path, "objective.profit_weight=1")]).as_json()["losses_differ_in"] == []


@pytest.mark.slow
def test_folders_and_patterns_find_each_run_once(outputs):
    everything = compare([outputs]).as_json()["runs"]
    assert len(everything) == 7
    by_pattern = compare([f"{outputs}/base/*/*", outputs / "base" / "fast"]).as_json()["runs"]
    assert {run["folder"] for run in by_pattern} == {run["folder"] for run in everything}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere does not exist"),
        (["nowhere/*"], "error: nowhere/* does not exist"),
        (["empty"], "error: empty holds no run"),
        (["one"], "one run alone has nothing to be compared with"),
        ([], "error: the following arguments are required: RUN"),
    ],
)
def test_an_impossible_comparison_ends_in_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    begun(tmp_path / "one")
    try:
        code = main(["compare", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "") and message in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_an_unfinished_run_is_named_and_left_out_of_the_figures(outputs, tmp_path):
    waiting = begun(tmp_path, *QUICK, "stocks.path=bars")
    comparison = compare([folders(outputs, "fast")[0], waiting])
    assert "Not finished, and left out of every figure: B1." in sentences(comparison)
    assert headline(comparison) == "Not enough is finished to compare"


@pytest.mark.slow
def test_the_last_line_is_the_whole_comparison_as_json_and_the_page_lies_with_the_outputs(outputs, capsys):
    assert main(["compare", str(outputs / "base" / "fast"), str(outputs / "base" / "tiny-folder-mixed"), "--json"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text.splitlines()[-1])
    page = Path(found.pop("page"))
    assert page.parent.parent == outputs / "comparisons" and (page.parent / "plotly.min.js").stat().st_nlink > 1
    comparison = compare([outputs / "base" / "fast", outputs / "base" / "tiny-folder-mixed"])
    assert found == comparison.as_json()
    assert "seeds needed" in text and headline(comparison) in text


def test_there_are_labels_for_more_groups_than_letters():
    assert [group_label(i) for i in (0, 25, 26)] == ["A", "Z", "G27"]


def test_text_from_outside_is_escaped_on_the_page(tmp_path):
    one, other = begun(tmp_path), begun(tmp_path, f"stocks.symbols=['{HOSTILE}']")
    edit_run_json(other, lambda known: known.update(platform=HOSTILE, name=HOSTILE))
    assert main(["compare", str(one), str(other), "--to", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "compare.html").read_text()
    assert HOSTILE not in page and "&lt;script&gt;alert(1)" in page


FRAME = """<!doctype html><body style="margin:0"><iframe id="frame" src="compare.html" width="{width}" height="4000"
style="border:0"></iframe><script>frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument, root = page.documentElement;
  document.body.dataset.found = JSON.stringify({{
    width: root.clientWidth, content: root.scrollWidth, headline: page.getElementById("headline").innerText,
    charts: [...page.querySelectorAll(".chart")].map((c) => [c.id, c.querySelectorAll(".scatterlayer .trace").length]),
    chartWidths: [...page.querySelectorAll(".chart .main-svg")].map((svg) => svg.getBoundingClientRect().width),
    strokes: [...page.querySelectorAll(".scatterlayer .js-line")].map((line) => line.style.stroke),
    order: [...page.querySelectorAll("section h2")].map((head) => head.innerText),
  }});
}}, 1000)</script>"""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("scheme", "stroke"), [(1, "rgb(176, 71, 47)"), (0, "rgb(239, 143, 118)")])
def test_a_browser_shows_the_comparison_at_this_width_without_an_error(outputs, tmp_path, width, scheme, stroke):
    page = tmp_path / "page"
    assert main(["compare", str(outputs / "base"), "--to", str(page)]) == 0
    (page / "frame.html").write_text(FRAME.format(width=width))
    found = found_in(drawn(page / "frame.html", tmp_path, width, scheme))
    assert found["content"] <= found["width"] <= width  # nothing to scroll sideways
    # Two groups of three seeds, a mean and buy and hold in two periods; loss and Sharpe ratio of two groups.
    assert dict(found["charts"]) == {"interval-chart": 1, "growth-chart": 18, "compare-probes": 4}
    assert max(found["chartWidths"]) <= width and stroke in found["strokes"]
    assert found["order"][0] == "Config" and "Metrics" in found["order"]
    assert found["headline"]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_cuts_no_column_of_the_comparison_without_a_hint(outputs, tmp_path, width):
    page = tmp_path / "page"
    assert main(["compare", str(outputs / "base"), "--to", str(page)]) == 0
    assert laid_out(page / "compare.html", tmp_path, width)["tables"] > 3
