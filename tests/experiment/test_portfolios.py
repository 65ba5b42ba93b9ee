"""`python -m hftraining portfolios RUN`: many ways to trade a finished run's validation forecasts, each a trial."""

import json
from pathlib import Path

import pytest

from hftraining.__main__ import main
from hftraining.core.errors import ConfigError
from hftraining.experiment import portfolios
from hftraining.experiment.portfolios import try_portfolios
from hftraining.experiment.replay import ReplayError
from hftraining.runs.ledger import Ledger
from tests.commands import last_object
from tests.runs_of import own_copy

pytestmark = pytest.mark.slow  # hundreds of accounts


@pytest.fixture(scope="module")
def done(reference, tmp_path_factory) -> Path:
    """A copy of a finished run with its ledger, whose search is made once; and what it found."""
    outputs = own_copy(Path(reference["folder"]).parents[2], tmp_path_factory.mktemp("portfolios") / "outputs")
    folder = outputs.joinpath(*Path(reference["folder"]).parts[-3:])
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(reference["folder"].split("/base/")[0], str(outputs)))
    return folder


@pytest.fixture(scope="module")
def found(done):
    return try_portfolios(done, ["tilt", "head"])


def ledger_of(folder: Path) -> Ledger:
    return Ledger(folder.parents[2] / "ledger.sqlite")


def test_the_runs_own_portfolio_comes_to_what_the_run_says(done, found):
    known = json.loads((done / "result.json").read_text())["valid"]["profit"]
    assert found.own.metrics == pytest.approx(known, nan_ok=True)


def test_hundreds_are_tried_and_the_best_is_judged_as_the_best_of_all_of_them(found):
    assert len(found.tried) > 100 and found.best.sharpe == max(one.sharpe for one in found.tried)
    assert found.n_trials >= len({one.metrics["total_return"] for one in found.tried})
    assert {one.portfolio.kind for one in found.tried} == {"edge", "tilt", "head"}


def test_every_portfolio_is_a_row_of_the_ledger_and_a_second_search_adds_none(done, found):
    rows = [entry for entry in ledger_of(done).entries() if entry.kind == "portfolio"]
    assert len(rows) == len(found.tried) and all(row.status == "done" and row.valid for row in rows)
    openings = sum(bool(entry.test) for entry in ledger_of(done).entries())
    again = try_portfolios(done, ["head"])
    assert sum(entry.kind == "portfolio" for entry in ledger_of(done).entries()) == len(rows)
    assert again.n_trials == found.n_trials
    assert sum(bool(entry.test) for entry in ledger_of(done).entries()) == openings


def test_a_run_whose_result_is_not_that_of_its_model_is_refused(done, found, tmp_path):
    copy = own_copy(done.parents[2], tmp_path / "outputs").joinpath(*done.parts[-3:])
    result = json.loads((copy / "result.json").read_text())
    result["valid"]["profit"]["total_return"] += 0.01
    (copy / "result.json").write_text(json.dumps(result))
    with pytest.raises(ReplayError, match="its model, forecasts or result were changed after the run"):
        try_portfolios(copy, ["head"], say=lambda line: None)


def test_a_search_that_is_broken_off_counts_the_portfolio_that_it_was_at(done, found, monkeypatch):
    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(portfolios, "SETTINGS", {"tilt": ({"strength": 0.123},)})
    before = len(ledger_of(done).entries())
    tracker = portfolios.ProfitTracker.evaluate
    calls = []

    def third(self, *arguments):
        calls.append(1)
        return tracker(self, *arguments) if len(calls) < 3 else broken()

    monkeypatch.setattr(portfolios.ProfitTracker, "evaluate", third)
    with pytest.raises(KeyboardInterrupt):
        try_portfolios(done, ["tilt"])
    added = ledger_of(done).entries()[before:]
    assert [entry.status for entry in added] == ["done", "interrupted"]


def test_a_kind_that_the_forecasts_cannot_feed_is_named_with_those_that_they_can(done):
    with pytest.raises(ConfigError, match=r"--kinds titl: these forecasts feed tilt, top, .*did you mean tilt"):
        try_portfolios(done, ["titl"])


def test_the_command_prints_the_best_beside_the_runs_own_and_holding_and_writes_a_page(done, found, capsys):
    assert main(["portfolios", str(done), "--kinds", "head", "--json"]) == 0
    out = capsys.readouterr().out
    answer = last_object(out)
    assert answer["tried"] == 30 and Path(answer["page"]).is_file()
    assert "(the run's own)" in out and "buy and hold" in out and answer["verdict"] in out
    assert answer["command"].startswith("python train.py ") and "portfolio.kind=" in answer["command"]


def test_a_folder_that_is_no_run_and_a_page_that_cannot_be_written_are_refused_before_anything_is_tried(done, tmp_path):
    assert main(["portfolios", str(done.parent), "--to", str(tmp_path / "pages")]) == 2
    assert not (tmp_path / "pages").exists()
    rows = len(ledger_of(done).entries())
    (tmp_path / "file").write_text("")
    assert main(["portfolios", str(done), "--kinds", "head", "--to", str(tmp_path / "file")]) == 2
    assert len(ledger_of(done).entries()) == rows
