"""A trader with Alpaca that is killed at any request, and keys that a broker echoes: nothing is lost, nothing leaks."""

import itertools
import logging
import multiprocessing
import os
from pathlib import Path
from random import Random

import pytest

from hfinference.live.brokers import Refused, Unreachable
from tests.hfinference.live.alpaca_account import Paper, at, child, desk, opened, orders_of
from tests.hfinference.live.alpaca_server import Fault, alpaca_server
from tests.hfinference.live.test_brokers import holds_a_key
from tests.slowly import mostly_slow

pytest.importorskip("alpaca", reason="alpaca-py is absent: pip install -e '.[live]'")

MONDAY, TUESDAY = "2024-03-04", "2024-03-05"
EVENING, NEXT_EVENING = at("2024-03-04 19:05"), at("2024-03-05 19:05")
SESSIONS = ["2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08"]
ODD = {"AAPL": 4, "MSFT": 9}
# How many requests apart the kills come, and the weeks of random faults: more with HFTRAINING_LONG=1.
STEP, WEEKS = (1, 12) if os.environ.get("HFTRAINING_LONG") else (6, 4)
MODULES = ["hfinference.live.alpaca", "alpaca.trading.client", "tests.hfinference.live.alpaca_account"]


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have what they need imported, and no threads of ours."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    return context


def kill_at(processes, server, request: int, processed: bool, folder: Path, day: str, wanted: dict[str, int]) -> bool:
    """Trade an evening in a process that is killed when its nth request arrives, or was done; whether it was."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=child, args=(theirs, server.url, str(folder), day, wanted))
    process.start()
    server.kill = (len(server.requests) + request, processed, process.pid)
    ours.send("go")
    process.join(60)
    server.kill = None
    assert process.exitcode in (0, -9)
    return process.exitcode == -9


@pytest.mark.slow
@pytest.mark.parametrize("processed", [False, True], ids=["when it arrives", "when it was done"])
@pytest.mark.long
def test_a_trader_that_is_killed_at_any_request_goes_on_without_a_lost_or_double_order(tmp_path, processes, processed):
    kills = 0
    for request in range(1 + processed, 60, STEP):  # to be done is nearly what it is that the next one arrives
        with alpaca_server(EVENING) as server:
            server.prices, server.pieces, server.auction_shares = {"AAPL": 100, "MSFT": 50}, 2, {"MSFT": 6}
            paper = Paper(server, tmp_path / f"{request}")
            first = kill_at(processes, server, request, processed, paper.folder, MONDAY, ODD)
            assert paper.evening(MONDAY, **ODD) == ""
            assert set(paper.statuses().values()) == {"accepted"} and len(server.ids()) == 2
            server.advance(NEXT_EVENING)
            second = kill_at(processes, server, request, processed, paper.folder, TUESDAY, {"AAPL": -4})
            assert paper.evening(TUESDAY, AAPL=-4) == ""
            server.advance(at("2024-03-06 16:05"))
            assert paper.reconcile() == ""
            paper.check({"MSFT": 6})
            assert len(server.ids()) == 3
            kills += first + second
            if not first and not second:
                break
    assert kills >= 24 // STEP  # all through both evenings: the last round was killed at none


@pytest.mark.parametrize("processed", [False, True], ids=["when it arrives", "when it was done"])
@pytest.mark.parametrize("post", mostly_slow([1, 2], quick=(0,)))
@pytest.mark.slow
def test_a_trader_that_is_killed_at_an_order_sends_it_once(tmp_path, processes, post, processed):
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        Paper(server, tmp_path / "other").evening(MONDAY, **ODD)  # which shows where the orders stand
        number = [n for n, name in enumerate(server.requests, 1) if name == "POST /orders"][post - 1]
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        paper = Paper(server, tmp_path / "alpaca")
        assert kill_at(processes, server, number, processed, paper.folder, MONDAY, ODD)
        assert list(paper.statuses().values()) == ["accepted"] * (post - 1) + ["sending"] + ["planned"] * (2 - post)
        assert len(server.ids()) == post - 1 + processed
        assert paper.evening(MONDAY, **ODD) == ""
        server.advance(at("2024-03-05 16:05"))
        assert paper.reconcile() == ""
        paper.check(ODD)


def random_faults(random: Random) -> list[Fault]:
    """Some requests of the next minutes that go wrong, in any of the ways that a network and a broker know."""
    ways = [{"status": status} for status in (403, 422, 429, 500, 502, 504)]
    ways += [{"cut": True}, {"body": "{}"}, {"body": "no JSON"}, {"status": 404, "body": "<html>"}]
    requests = ("POST", "POST", "GET /orders:by", "GET /orders", "GET /account", "GET /positions", "GET /")
    return [
        Fault(random.choice(requests), processed=random.random() < 0.5, times=random.choice((1, 1, 2, 4)), **way)
        for way in random.sample(ways, random.randint(0, 4))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(WEEKS))
def test_whatever_goes_wrong_a_week_ends_reconciled_without_a_double_order(tmp_path, seed):
    random = Random(seed)
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        paper, names = Paper(server, tmp_path), []
        assert paper.reconcile() == ""

        def until_it_works(act) -> None:
            """Start again as cron does; what halts is resumed. After ten starts the broker is well."""
            for n in range(12):
                server.faults = random_faults(random) if n < 10 else []
                try:
                    name = act()
                except (Unreachable, Refused):
                    continue
                if not name:
                    return
                names.append(name)
                paper.resume()
            raise AssertionError(paper.halt)

        for day, following in itertools.pairwise(SESSIONS):
            server.pieces, server.leaves = random.randint(1, 3), random.choice(["canceled", "expired"])
            server.auction_shares = {"AAPL": random.choice([0, 3, 99]), "MSFT": random.choice([2, 99])}
            server.twice, server.backwards = random.random() < 0.3, random.random() < 0.3
            held = int(server.positions.get("AAPL", 0))
            wanted = {"AAPL": -held if held and random.random() < 0.5 else random.randint(1, 9)}
            wanted["MSFT"] = random.randint(1, 9)
            until_it_works(lambda day=day, wanted=wanted: paper.evening(day, **wanted))
            server.advance(at(f"{following} 19:05"))
            server.hidden_fills = random.choice([0, 0, 1])
            until_it_works(paper.reconcile)
            server.faults = []
            paper.check()
        assert set(names) <= {"broker"}  # no fault of a network ever looked like another account


def test_a_key_that_the_broker_echoes_everywhere_is_in_no_file_no_log_and_no_output(tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        trading = desk(server.url)
        with opened(tmp_path / "alpaca", trading) as journal:
            journal.plan(MONDAY, orders_of(journal, MONDAY, {"AAPL": 10, "MSFT": 4}))
            server.faults = [Fault("POST", status=422, echo=True), Fault("POST", status=500, echo=True, times=3)]
            with pytest.raises(Unreachable) as caught:
                trading.send(journal, EVENING)
            assert {order.symbol: order.status for order in journal.orders()} == {"AAPL": "rejected", "MSFT": "unknown"}
            assert all("it is" in order.reason and "***" in order.reason for order in journal.orders())
            journal.halt("broker", str(caught.value))
        captured = capfd.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    texts = [path.read_bytes().decode("latin-1") for path in files]
    for text in [*texts, captured.out, captured.err, caplog.text, str(caught.value), str(vars(caught.value))]:
        assert not holds_a_key(text)
