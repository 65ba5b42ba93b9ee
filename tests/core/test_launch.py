"""What the variables of torchrun and Ray say: taken as they are meant, or refused in one line before all else."""

import os
import socket
import subprocess
import sys

import pytest

from hftraining.core.errors import ConfigError
from hftraining.core.launch import ray_cluster, started
from tests.commands import ROOT

GOOD = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}


@pytest.fixture
def set_to(monkeypatch):
    def put(**variables):
        for name in (*GOOD, "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def test_all_variables_together_say_how_many_processes_there_are_and_a_size_alone_is_no_torchrun(set_to):
    for variables, size in (
        (GOOD, 2),
        ({"WORLD_SIZE": "8"}, 1),
        ({"WORLD_SIZE": "0"}, 1),
        ({"WORLD_SIZE": ""}, 1),
        (GOOD | {"WORLD_SIZE": "1"}, 1),
    ):
        set_to(**variables)
        assert started() == size
    set_to()
    assert started() == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is no whole number of at least 1"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE=-2 in the environment is no whole number of at least 1"),
        ({"RANK": "2"}, "RANK=2 in the environment is no whole number from 0 to 1"),
        ({"RANK": "x"}, "RANK=x in the environment is no whole number from 0 to 1"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT=99999 in the environment is no whole number from 1 to 65535"),
        ({"LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE=9 in the environment"),
        ({"MASTER_ADDR": ""}, "WORLD_SIZE=2 and RANK and MASTER_PORT are set in the environment, but not MASTER_ADDR"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(set_to, change, said):
    set_to(**GOOD | change)
    with pytest.raises(ConfigError, match="unset") as refused:
        started()
    assert str(refused.value).startswith(said)


def ended_with(tmp_path, **variables):
    """The one line with which a rank ends that begins nothing."""
    own = os.environ | GOOD | variables | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "train.py", f"output_dir={tmp_path / 'out'}"]
    done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    return done.stderr


def test_a_rank_that_cannot_be_ends_in_one_line_and_begins_nothing(tmp_path):
    assert "RANK=5" in ended_with(tmp_path, RANK="5")


@pytest.mark.slow  # loads torch
def test_a_port_that_is_taken_ends_in_one_line_and_begins_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"MASTER_PORT={port}: the ranks cannot meet there" in ended_with(tmp_path, RANK="0", MASTER_PORT=port)


def test_an_address_of_ray_is_a_cluster_that_answers_or_none_is_given(monkeypatch):
    for none in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", none)
        assert ray_cluster() is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert ray_cluster() is None
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        for known in ("auto", address):
            monkeypatch.setenv("RAY_ADDRESS", known)
            assert ray_cluster() == known
    with pytest.raises(ConfigError, match=rf"^RAY_ADDRESS={address} in the env.*: nobody answers there \(.*refused"):
        ray_cluster()


@pytest.mark.parametrize(
    "address",
    ["nonsense", "host:", ":6379", "host:0", "host:65536", "host:1e3", "a b:6379", "http://host:6379", "[::1]"],
)
def test_what_is_no_address_of_ray_is_refused(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="is no address: unset it to start Ray on this machine"):
        ray_cluster()


@pytest.mark.parametrize("host", ["a..b", ".", "x" * 64, "no-such-host.invalid"])
def test_a_host_of_ray_that_nobody_knows_is_refused(host, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"{host}:6379")
    with pytest.raises(ConfigError, match="nobody answers there"):
        ray_cluster()


def test_a_ray_client_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(ConfigError, match="a Ray client cannot lead a training"):
        ray_cluster()
