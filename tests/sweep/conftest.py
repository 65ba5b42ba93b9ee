"""A PostgreSQL server for the tests of studies."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)


@pytest.fixture
def postgres(tmp_path):
    """A PostgreSQL server of Debian on its own loopback port."""
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path("/tmp") / f"pg-{os.getpid()}-{port}"
    home.mkdir()
    user = {}
    if os.getuid() == 0:  # it refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    run = {"check": True, "capture_output": True, "cwd": home, **user}
    subprocess.run([POSTGRES / "initdb", "-D", home / "data", "-U", "tester", "--auth=trust"], **run)
    server = subprocess.Popen(
        [POSTGRES / "postgres", "-D", home / "data", "-p", str(port), "-h", "127.0.0.1", "-k", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
        **user,
    )
    for _ in range(100):
        if subprocess.run(
            [POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True
        ).returncode:
            time.sleep(0.1)
    yield f"postgresql://tester:secret-canary@127.0.0.1:{port}/postgres"
    server.send_signal(signal.SIGINT)  # a fast shutdown: a client that is still connected does not hold it up
    server.wait(timeout=60)
    shutil.rmtree(home)
