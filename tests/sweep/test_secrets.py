"""A secret, wherever a user puts it, is found in no file and no output."""

import base64
import json
import os
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from hftraining import train_with_profit
from hftraining.__main__ import main
from hftraining.core.command import run_command
from hftraining.core.secret import masked, masked_argument, remember
from hftraining.runs.record import LOGGER, RunRecord
from hftraining.sweep.serve import serve
from hftraining.sweep.study import Study
from tests.commands import train, train_here
from tests.runs_of import own_copy
from tests.sweep_study import SPACE, Synthetic, search_config

pytestmark = pytest.mark.slow  # attacks: many, and none of them is likely to come back by itself

CANARY = "Canary-5f1e"
HARD = f"{CANARY}@:/%?#&\"'"  # a password with every sign that ends a part of a URL or a text
SWEEP = (
    "-m",
    "search=profit",
    "model=tiny",
    "stocks=sample5",
    "training.max_steps=4",
    "training.window=48",
    "training.threads=1",
    "profit_tracker.every=2",
    "evidence.baselines=[trend]",
    "evidence.null_draws=40",
    "evidence.bootstrap_draws=100",
    "evidence.leak_days=1",
    "search.constraints={profit/max_drawdown:'>= -0.99'}",
    "hydra.sweeper.n_trials=2",
)
NOWHERE = "127.0.0.1:1"  # refuses a connection at once


def forms(secret: str) -> set[bytes]:
    """A secret as it is, and as URLs, Python, JSON and base64 write it."""
    texts = {secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    coded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {text.encode() for text in texts | {coded[:-1]}}  # the last sign depends on what follows


def found(folder: Path, *outputs: str) -> list[str]:
    """Where the canary is: names and contents of all files below a folder, of the state, and texts."""
    places = [
        folder,
        Path(os.environ["XDG_STATE_HOME"]),
        *Path(tempfile.gettempdir()).glob(f"hftraining-{os.getuid()}*"),
    ]
    wanted = forms(CANARY)
    seen = [f"output {number}" for number, text in enumerate(outputs) if any(w in text.encode() for w in wanted)]
    for place in places:
        for path in place.rglob("*"):
            if any(w in str(path.relative_to(place)).encode() for w in wanted):
                seen.append(f"name {path}")
            if path.is_file() and any(w in path.read_bytes() for w in wanted):
                seen.append(str(path))
    return seen


def storage(url: str) -> tuple[str, ...]:
    return (*SWEEP, f"search.storage={url}")


REFUSED = {
    "environment, into the name of a run": ("name=x-${oc.env:A_SECRET}",),
    "environment, into a field of a group": ("stocks=folder", "stocks.path=${oc.env:A_SECRET}"),
    "environment, into a folder of Hydra": ("hydra.run.dir=${oc.env:A_SECRET}",),
    "environment, by a composed name": ("name=${oc.${stocks.name}:A_SECRET}", "stocks.name=env"),
    "environment, through another resolver": ("name=${oc.decode:${oc.env:A_SECRET}}",),
    "environment, into the name of a job": ("hydra.job.name=${oc.env:A_SECRET}", "hydra/job_logging=default"),
    "environment, through the whole search": (*storage("${oc.env:A_SECRET}"), "name=${search}"),
    "environment, into a multirun": ("-m", "seed=1,2", "model=tiny", "output_dir=${oc.env:A_SECRET}"),
    "environment, through the storage into a name": (*storage("${oc.env:A_SECRET}"), "search.name=${.storage}"),
    "environment, as a storage that is no URL": storage("${oc.env:A_SECRET}"),
    "environment, a URL as storage": storage("${oc.env:A_URL}"),
    "user": storage(f"postgresql://{CANARY}:pw@{NOWHERE}/db"),
    "password": storage(f"postgresql://me:{CANARY}@{NOWHERE}/db"),
    "password with every sign, as it is": storage(f"postgresql://me:{HARD}@{NOWHERE}/db"),
    "password with every sign, encoded": storage(f"postgresql://me:{quote(HARD, safe='')}@{NOWHERE}/db"),
    "password with a comma and blanks": storage(f"postgresql://me:a,{CANARY} b@{NOWHERE}/db"),
    "password beside an IPv6 host": storage(f"postgresql://me:{CANARY}@[::1]:1/db"),
    "query: password": storage(f"postgresql://{NOWHERE}/db?password={CANARY}"),
    "query: sslpassword": storage(f"postgresql://{NOWHERE}/db?sslmode=require&sslpassword={CANARY}"),
    "query: options": storage(f"postgresql://{NOWHERE}/db?options=-c%20{CANARY}"),
    "query: a word that no database knows": storage(f"postgresql://{NOWHERE}/db?nonsense={CANARY}"),
    "fragment": storage(f"postgresql://{NOWHERE}/db#{CANARY}"),
    "MySQL": storage(f"mysql://me:{CANARY}@{NOWHERE}/db?x={CANARY}"),
    "no known database": storage(f"nonsense://me:{CANARY}@h/db"),
    "quoted": storage(f"'postgresql://me:{CANARY}@{NOWHERE}/db'"),
    "printed by Hydra": (*storage(f"postgresql://me:{CANARY}@{NOWHERE}/db")[1:], "--cfg", "all"),
    "printed by Hydra, resolved": (*storage("${oc.env:A_URL}")[1:], "--cfg", "job", "--resolve"),
    "beside an unknown field": (*storage(f"postgresql://me:{CANARY}@{NOWHERE}/db"), "training.nonsense=1"),
    "a path that is a URL": ("stocks=folder", f"stocks.path=s3://me:{CANARY}@bucket/x"),
    "an outputs folder that is a URL": ("-m", "seed=1,2", f"output_dir=https://me:{CANARY}@h/x?y=z"),
    "a base model behind a URL": (f"init_from=https://h/x?token={CANARY}",),
    "a password of a launcher": ("-m", "seed=1,2", f"+hydra.launcher.x._redis_password={CANARY}"),
    "a URL of a launcher": ("-m", "seed=1,2", f"+hydra.launcher.address=ray://me:{CANARY}@h"),
    "a proxy": ("stocks=tech10", "stocks.symbols=[AAPL]"),
}


# Of each of these another one goes the same way, which every run of the suite takes.
ALIKE = {
    "environment, into a folder of Hydra",
    "environment, through another resolver",
    "environment, through the storage into a name",
    "environment, as a storage that is no URL",
    "password",
    "password with every sign, as it is",
    "password with a comma and blanks",
    "query: sslpassword",
    "query: options",
    "quoted",
    "printed by Hydra",
    "a URL of a launcher",
}


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(REFUSED[name], id=name, marks=[pytest.mark.long] * (name in ALIKE)) for name in REFUSED],
)
def test_a_secret_of_a_command_that_is_refused_is_nowhere(tmp_path, arguments):
    if any("postgresql" in text or "A_URL" in text for text in arguments):
        pytest.importorskip("psycopg")
    secrets = {
        "A_SECRET": CANARY,
        "A_URL": f"postgresql://me:{CANARY}@{NOWHERE}/db?application_name={CANARY}",
        "HTTPS_PROXY": f"http://me:{CANARY}@{NOWHERE}",
        "https_proxy": f"http://me:{CANARY}@{NOWHERE}",
    }
    code, out, err = train_here(tmp_path, *arguments, **secrets)
    assert found(tmp_path, out, err) == []
    assert code == (0 if "--cfg" in arguments else 2) and (code == 0 or err.count("\n") == 1), err


def own_search(folder: Path, url: str) -> tuple[str, ...]:
    """A sweep by a search of the user's own, whose file, in a folder beside, holds the URL."""
    conf = folder.with_name(f"{folder.name}-conf")
    (conf / "search").mkdir(parents=True)
    (conf / "search" / "mine.yaml").write_text(
        f"# @package _global_\ndefaults:\n  - profit\n  - _self_\nsearch:\n  storage: {json.dumps(url)}\n"
    )
    return "--config-dir", str(conf), *(text.replace("search=profit", "search=mine") for text in SWEEP)


HYDRAS_OWN_FILES = ("hydra.output_subdir=.hydra", "hydra/job_logging=default", "hydra/hydra_logging=default")
TALKATIVE = (*HYDRAS_OWN_FILES, "hydra.verbose=true")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["typed", "from the environment", "from a file", "for joblib, from a file"])
@pytest.mark.long
def test_a_secret_of_a_sweep_that_ends_is_nowhere(tmp_path, how):
    url = f"sqlite:///{tmp_path}/study.db?application_name={CANARY}#{CANARY}"
    arguments = own_search(tmp_path, url) if "a file" in how else storage("${oc.env:A_URL}" if "env" in how else url)
    if "joblib" in how:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
        arguments = (*arguments, "hydra/launcher=joblib", "search.workers=2")
    code, out, err = train(tmp_path, *arguments, *TALKATIVE, A_URL=url)
    assert code == 0, err
    assert list(tmp_path.rglob(".hydra/overrides.yaml")) and list(tmp_path.rglob("sweep.html"))
    assert found(tmp_path, out, err) == []


@pytest.mark.slow
def test_the_password_and_query_of_a_postgresql_server_are_nowhere(tmp_path, postgres):
    host = postgres.rpartition("@")[2]
    url = f"postgresql://tester:{quote(HARD, safe='')}@{host}?application_name={CANARY}"
    code, out, err = train(tmp_path, *own_search(tmp_path, url), *TALKATIVE)
    assert code == 0, err
    study = Study(search_config(url, name="profit-sample5"), tmp_path).study
    kept = json.dumps([study.user_attrs, [trial.user_attrs for trial in study.trials]], default=str)
    assert len(study.trials) == 2 and found(tmp_path, out, err, kept) == []
    wrong = storage(f"postgresql://{CANARY}:{CANARY}@{host}?application_name={CANARY}")
    code, out, err = train_here(tmp_path, *wrong)  # FATAL: role "..." does not exist
    assert code == 2 and "role" in err and found(tmp_path, out, err) == []


def test_the_error_and_traceback_of_a_failed_trial_are_stored_without_secrets(tmp_path, capsys):
    class Failing(Synthetic):
        def __call__(self, number, point, watch, facts):
            raise ValueError(f"cannot connect: postgresql://me:{CANARY}@h/db password={CANARY} via {CANARY}x")

    remember(f"postgresql://h/db?token={CANARY}x")
    study = Study(search_config(n_trials=1), tmp_path)
    serve(study, SPACE, {}, Failing(tmp_path))
    (trial,) = study.trials()
    assert "Traceback" in trial.user_attrs["facts"]["traceback"]
    assert found(tmp_path, json.dumps(trial.user_attrs), *capsys.readouterr()) == []


@pytest.mark.parametrize("command", ["replay", "init_from", "resume"])
def test_a_variable_named_in_the_config_of_a_run_is_not_read(reference, tmp_path, monkeypatch, command):
    run = own_copy(Path(reference["folder"]), tmp_path / "outputs" / "base" / "theirs" / "run")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["stocks"]["path"] = "${oc.env:A_SECRET}"
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("A_SECRET", CANARY)
    if command == "replay":
        monkeypatch.chdir(tmp_path)
        code, out, err = main(["replay", str(run)]), "", ""
    else:
        code, out, err = train_here(tmp_path, f"{command}={run}")
    assert code == 2 and found(tmp_path, out, err) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@ss/w:d?x@h:5/db?password=abc&sslmode=require#frag", "postgresql://***@h:5/db?password=***&sslmode=***#***"),
        ("sqlite:////me@home/x.db?password=pw", "sqlite:////me@home/x.db?password=***"),
        ("postgresql+psycopg://u:p@[::1]:5432/db", "postgresql+psycopg://***@[::1]:5432/db"),
        ("https://token@github.com/a and http://b/c?d", "https://***@github.com/a and http://b/c?***"),
        ("see https://hydra.cc/docs/1.2/x for help", "see https://hydra.cc/docs/1.2/x for help"),
        ("cannot reach postgresql://me:the-first-half", "cannot reach postgresql://***@"),
        ("redis://h:6379/0 and x://h:80?a=b", "redis://h:6379/0 and x://h:80?a=***"),
        ("https:/me:a@b@h/x is not a run; C:/me@x is", "https:/***@h/x is not a run; C:/me@x is"),
        ("host=h password=abc user=u", "host=h password=*** user=u"),
        ('{"token": "a b", "k": 1}', '{"token": ***, "k": 1}'),
        ("Authorization: Basic abcd=", "Authorization: ***"),
        ("PGPASSWORD='a b' API_KEY=c client_secret: d", "PGPASSWORD=*** API_KEY=*** client_secret: ***"),
        ("access_token=a api-key=b account_key='c d'", "access_token=*** api-key=*** account_key=***"),
        ("tokens=3 keys=4 monkey=5 full_key: a.b", "tokens=3 keys=4 monkey=5 full_key: a.b"),
    ],
)  # fmt: skip
def test_secrets_are_masked_by_their_place(text, shown):
    assert masked(text) == shown


def test_secrets_are_masked_by_their_value_once_their_url_is_known():
    remember("postgresql://maggie:p%40ss%2Fw0rd@h/db?sslmode=require&opaque=Zed-17&pin=ab1&port=5432")
    assert masked("p@ss/w0rd p%40ss%2Fw0rd Zed-17") == "*** *** ***"
    assert masked(base64.b64encode(b"maggie:p@ss/w0rd").decode()) == "***"
    assert masked("postgresql maggie-x maggiexy", users=True) == "postgresql ***-x maggiexy"
    assert masked("require 5432 ab1 maggie") == "require 5432 ab1 maggie"  # words, or too short to be told from words
    assert masked('role "maggie" does not exist', users=True) == 'role "***" does not exist'


def test_the_log_of_a_run_holds_no_secret_of_an_error(reference, tmp_path):
    remember(f"postgresql://h/db?token={CANARY}x")
    with RunRecord.reopen(own_copy(Path(reference["folder"]), tmp_path / "run"), 6):
        try:
            raise ValueError(f"postgresql://me:{CANARY}@h/db password={CANARY} {CANARY}x")
        except ValueError:
            LOGGER.exception("it failed")
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()
    assert found(tmp_path) == []


def test_a_long_text_is_masked_in_little_time():
    begun = time.perf_counter()
    for text in ("a" * 100_000, "a_" * 50_000, "x://" * 25_000, "key" * 30_000, "0" * 100_000, "@:/?" * 25_000):
        masked(text), masked_argument(f"x://{text}")
    assert time.perf_counter() - begun < 10


def test_an_argument_with_blanks_in_its_password_is_masked_to_its_end():
    assert masked_argument("a=x://u:p q'\"r@h/d e?f g") == "a=x://***@h/d e?***"


URL = f"https://me:{CANARY}@h/x?token={CANARY}"
SCRIPT = ("--stock", "AAPL", "--data", "sample5", "--steps", "4")
COMMANDS = {
    "report": (main, ("report", URL)),
    "ledger": (main, ("ledger", "--ledger", URL)),
    "compare": (main, ("compare", URL)),
    "replay": (main, ("replay", URL, "--from-commit")),
    "no command": (main, (URL,)),
    "an outputs folder": (train_with_profit.main, (*SCRIPT, "--output-dir", URL)),
    "data": (train_with_profit.main, ("--stock", "AAPL", "--data", URL)),
    "a stock": (train_with_profit.main, ("--stock", URL, "--data", "sample5")),
    "a setting": (train_with_profit.main, (*SCRIPT, "--set", f"stocks.path={URL}")),
    "a setting from the environment": (train_with_profit.main, (*SCRIPT, "--set", "name=${oc.env:A_SECRET}")),
}


@pytest.mark.parametrize(("command", "words"), COMMANDS.values(), ids=list(COMMANDS))
def test_a_secret_of_another_command_is_nowhere(tmp_path, monkeypatch, capsys, command, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_SECRET", CANARY)
    try:
        code = run_command(command, words)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and found(tmp_path, *capsys.readouterr()) == []
