"""The table of a plain multirun: what varies, one line a row, whole where it goes into a file."""

from hftraining.runs.quantities import Score
from hftraining.runs.record import RunRecord
from hftraining.runs.result import Baseline, PeriodResult, RunResult, write_result
from hftraining.sweep.multirun import note_run, show_table

LONG = "indistinguishable from chance, however long the sentence grows in which a verdict says so to the reader"


def listed_run(outputs, place, held=0.2, seed=1, **fields) -> None:
    """A run with these fields of the training group, that earned 10 % and is in the list of its multirun."""
    config = {"model": {"name": "tiny"}, "training": {"max_steps": 5, "dropout": 0.1} | fields, "seed": seed}
    with RunRecord.create(outputs, "base", "runs", config, {}, {"signature": "ab", "seed": seed}) as run:
        folder = run.folder
        run.log(5, {"train/loss": 0.3})
    period = PeriodResult(
        profit={"total_return": 0.1, "sharpe_ratio": 0.5},
        baselines={"buy_and_hold": Baseline({"total_return": held})},
        interval=[-0.4, 1.4],
        scores={"rank_ic": Score(value=0.02 * seed, t=2.5)},
        money="It earned 10.0 %, where holding earned 20.0 %.",
        verdict=LONG,
    )
    write_result(folder, RunResult(periods={"valid": period}, verdict=LONG, eval_loss=0.3, parameters=1234))
    note_run(str(place), folder)


def table_of(capsys, place) -> list[str]:
    show_table(str(place))
    return capsys.readouterr().out.splitlines()


def test_a_row_is_one_line_through_a_pipe_and_has_nothing_that_does_not_vary(tmp_path, capsys):
    place = tmp_path / "multirun"
    for dropout in (0.1, 0.2):
        listed_run(tmp_path / "outputs", place, dropout=dropout)
    title, heads, *rows = table_of(capsys, place)
    assert title.startswith("configurations") and heads.split()[:3] == ["configuration", "validation", "return"]
    assert "runs" not in heads and "of holding" not in heads and "alpha" not in heads
    assert [row.split()[0] for row in rows[:2]] == ["training.dropout=0.1", "training.dropout=0.2"]
    assert all(LONG in row and "max_steps" not in row for row in rows[:2])
    assert rows[2] == "Buy and hold: +20.0% on the validation days."


def test_what_holding_earned_has_a_column_where_it_varies_and_the_runs_where_there_are_several(tmp_path, capsys):
    place = tmp_path / "multirun"
    for dropout, held in ((0.1, 0.2), (0.1, 0.2), (0.2, 0.3)):
        listed_run(tmp_path / "outputs", place, held, dropout=dropout)
    lines = table_of(capsys, place)
    assert "runs" in lines[1].split() and "of holding" in lines[1]
    assert not [line for line in lines if line.startswith("Buy and hold")]


def test_a_single_run_shows_the_interval_of_its_sharpe_ratio_and_several_seeds_their_spread(tmp_path, capsys):
    place = tmp_path / "multirun"
    for seed, dropout in ((1, 0.1), (1, 0.2), (2, 0.2)):
        listed_run(tmp_path / "outputs", place, seed=seed, dropout=dropout)
    _, heads, *rows = table_of(capsys, place)
    for head in ("validation Sharpe", "validation rank IC", "parameters", "CPU s"):
        assert head in heads
    single, seeds = (next(row for row in rows if row.startswith(f"training.dropout={x}")) for x in (0.1, 0.2))
    assert "0.50 [-0.40, 1.40]" in single and "0.020 (t 2.50)" in single and "1,234" in single
    assert "[" not in seeds and "0.030 +- 0.014" in seeds
