"""Round trips that are made of fills alone are those of the engine that made the fills."""

import numpy as np
import pytest

from hfinference import LiveTrader, load_model
from hfinference.live.entries import MICRO, NANO, Adjustment, Fill, Mark, Order, order_id
from hfinference.live.journal import Journal
from hfinference.live.trips import trips_frame


@pytest.mark.slow
@pytest.mark.parametrize("portfolio", ["edge", "sign"])
def test_the_trips_of_a_replay_are_the_engines_trades(own, tmp_path, portfolio):
    words = f"portfolio={portfolio}", "profit_tracker=default", "profit_tracker.borrow_rate=0"
    days = load_model(own).days["test"]
    account = LiveTrader(own, words=words, journal=tmp_path / "j").start_paper_trading((str(days[0]), str(days[1])))
    with Journal.read(tmp_path / "j") as journal:
        ours = trips_frame(journal)
    by = ["symbol", "entry_date", "shares"]
    ours, theirs = (frame.sort_values(by).reset_index(drop=True) for frame in (ours, account.trades))
    assert len(ours) == len(theirs) > 10 and list(ours) == list(theirs)
    for name in ("symbol", "side", "exit_reason"):
        assert ours[name].tolist() == theirs[name].tolist()
    for name in ("entry_date", "exit_date"):
        np.testing.assert_array_equal(ours[name].to_numpy("datetime64[s]"), theirs[name].to_numpy("datetime64[s]"))
    for name, most in (("shares", 1e-7), ("entry_price", 1e-4), ("exit_price", 1e-4), ("pnl", 1e-3)):
        assert np.abs(ours[name] - theirs[name]).max() < most, name


def test_a_split_adds_shares_that_cost_nothing_and_a_change_of_side_begins_another_trip(tmp_path):
    with Journal.open(tmp_path, {"capital_micro": 10_000 * MICRO}) as journal:
        for n, (day, shares, price) in enumerate([("2024-03-05", 10, 60), ("2024-03-07", -25, 40)]):
            key = order_id(journal.id, day, "AAPL")
            journal.plan(day, [Order(key, day, "AAPL", "buy" if shares > 0 else "sell", abs(shares) * NANO)])
            journal.fill(Fill(f"{n}", key, day, "AAPL", shares * NANO, price * MICRO))
        journal.adjust(Adjustment("split", "2024-03-06", "AAPL", 10 * NANO, 0, "split"))
        journal.mark(Mark("2024-03-07", journal.cash(), journal.cash() - 150 * MICRO, {"AAPL": 30.0}))
        trips = trips_frame(journal)
    assert trips["side"].tolist() == ["long", "short"] and trips["exit_reason"].tolist() == ["signal", "open"]
    assert trips["shares"].tolist() == [20.0, 5.0] and trips["entry_price"].tolist() == [30.0, 40.0]
    assert trips["exit_price"].tolist() == [40.0, 30.0] and trips["pnl"].tolist() == [200.0, 50.0]


def test_an_account_that_never_traded_has_no_trips(tmp_path):
    with Journal.open(tmp_path, {"capital_micro": MICRO}) as journal:
        assert trips_frame(journal).empty
