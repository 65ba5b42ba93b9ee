"""The four kinds of run, as commands; how each is resumed after a kill; and what it comes to in the end."""

import hashlib
import json
import re
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tests.bars_of import make_bars, write_csv_files
from tests.crash.server import Ended, Server
from tests.runs_of import QUICK

TINY = (
    *QUICK,
    "model.hidden_size=8",
    "training.max_steps=4",
    "training.checkpoint_every=2",
    "profit_tracker.every=2",
    "evidence.null_draws=20",
    "evidence.bootstrap_draws=100",
    "evidence.baselines=[]",
    "stocks.path=bars",
)
SEARCH = ("-m", "search=profit", "search.n_trials=3", "search.patience=2", "search.first=[]")
DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")
OF_THE_MOMENT = ("id", "started", "argv")  # in run.json
NOT_COMPARED = re.compile(
    r"(\.tmp|\.sqlite(-wal|-shm)?|\.lock|train\.log|study\.journal|\.pyc)\Z|tfevents|/\.begun-|\A/outputs/\."
)


@dataclass
class Scene:
    """A working folder in which a command is killed and resumed, always at the same path."""

    server: Server
    cwd: Path
    prepared: Path  # copied to cwd before each try
    command: tuple[str, ...]
    by: str = "train"
    resumes_by_folder: bool = True  # with resume=FOLDER; others by the same command again
    before: set[str] = field(default_factory=set)  # run folders that were there

    def fresh(self) -> None:
        shutil.rmtree(self.cwd, ignore_errors=True)
        shutil.copytree(self.prepared, self.cwd)

    def run(self, *words: str, by: str | None = None, **settings) -> Ended:
        state = str(self.cwd / "state")
        return self.server.run(self.cwd, *words, command=by or self.by, XDG_STATE_HOME=state, **settings)

    def go(self, **settings) -> Ended:
        return self.run(*self.command, **settings)

    def resume(self, **settings) -> Ended:
        """What a user does after a kill: resume=FOLDER where there is a folder, else the command again."""
        begun = sorted(set(run_folders(self.cwd)) - self.before) if self.resumes_by_folder else []
        return self.run(f"resume={begun[-1]}", by="train", **settings) if begun else self.go(**settings)

    def end(self) -> dict[str, object]:
        return {**files_of(self.cwd), **ledger_of(self.cwd)}


def run_folders(cwd: Path) -> list[str]:
    """The run folders below cwd, without candidates and folders that are not whole."""
    found = (path.parent.relative_to(cwd) for path in (cwd / "outputs").rglob("run.json"))
    return [str(path) for path in found if "candidates" not in path.parts and ".begun-" not in str(path)]


def files_of(cwd: Path) -> dict[str, object]:
    """Every file of the outputs by its name without date, with its content but for times, ids and ports."""
    found: dict[str, object] = {}
    for path in sorted((cwd / "outputs").rglob("*")):
        name = "/" + str(path.relative_to(cwd))
        if path.is_file() and not NOT_COMPARED.search(name):
            found[numbered(name, cwd)] = content_of(path)
    return found


def numbered(name: str, cwd: Path) -> str:
    """A name below cwd with the number of each dated folder, in the order of the dates, in place of its date."""
    path, parts = cwd, []
    for part in name.strip("/").split("/"):
        if DATED.fullmatch(part):
            dated = sorted(other.name for other in path.iterdir() if DATED.fullmatch(other.name))
            parts.append(f"RUN{dated.index(part) + 1}")
        else:
            parts.append(part)
        path = path / part
    return "/" + "/".join(parts)


def content_of(path: Path) -> str:
    if path.name == "trials.parquet":
        frame = pd.read_parquet(path).drop(columns=["seconds", "attempt"])
        return frame.to_csv()
    data = path.read_bytes()
    if path.suffix not in (".json", ".jsonl", ".html", ".yaml"):
        return hashlib.sha256(data).hexdigest()
    text = DATED.sub("DATE", data.decode())
    if path.name == "metrics.jsonl":
        text = re.sub(r', "(cpu_)?seconds": [\d.]+', "", text)
    if path.name == "run.json":
        facts = {name: value for name, value in json.loads(text).items() if name not in OF_THE_MOMENT}
        text = json.dumps(facts, indent=1)
    if path.suffix == ".html":  # dates and durations, and lines of metrics with their seconds
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+|\d+(\.\d+)? (ms|s|min)\b|\d\d:\d\d(:\d\d)?", "TIME", text)
        text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
    return text


def ledger_of(cwd: Path) -> dict[str, object]:
    """The rows of the user's ledger in plain words: none twice, none left running, each opening once."""
    path = cwd / "state" / "hftraining" / "ledger.sqlite"
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT kind, name, signature, status, valid_outcome, test_outcome, sharpe, result FROM runs ORDER BY "
            "kind, name, signature, valid_outcome, test_outcome"
        ).fetchall()
        openings = connection.execute(
            "SELECT signature, openings.test_window FROM openings JOIN runs ON runs.id = run_id ORDER BY 1, 2"
        ).fetchall()
        series = connection.execute("SELECT period, dates, hex(returns) FROM series ORDER BY 1, 2, 3").fetchall()
    connection.close()
    return {"rows": rows, "openings": openings, "series": series}


def differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    said = [f"{name}: only {'now' if name in found else 'before'}" for name in sorted(found.keys() ^ wanted.keys())]
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            ours, theirs = str(found[name]), str(wanted[name])
            ends = min(len(ours), len(theirs))
            at = next((place for place in range(ends) if ours[place] != theirs[place]), ends)
            part = slice(max(0, at - 60), at + 60)
            said.append(f"{name} differs at {at}: {ours[part]!r} for {theirs[part]!r}")
    return said


def scene(kind: str, server: Server, place: Path) -> Scene:
    """The working folder of a kind of run, ready to be copied: base, finetune, sweep or replay."""
    cwd, prepared = place / "work", place / "prepared"
    shutil.rmtree(cwd, ignore_errors=True)
    (cwd / "bars").mkdir(parents=True)
    write_csv_files(make_bars(n_sessions=300, n_symbols=2, seed=3), cwd / "bars")
    commands = {
        "base": TINY,
        "finetune": ("init_from=RUN", "stocks.symbols=[S0]", "training.methods=[head,lora]", "training.max_steps=4"),
        "sweep": (*SEARCH, *TINY),
        "replay": ("replay", "RUN"),
    }
    made = Scene(server, cwd, prepared, commands[kind])
    made.by = "hftraining" if kind == "replay" else "train"
    made.resumes_by_folder = kind in ("base", "finetune")
    if kind in ("finetune", "replay"):
        ended = made.run(*TINY, by="train")
        assert ended.code == 0, ended.err
        base = run_folders(cwd)[0]
        made.command = tuple(word.replace("RUN", base) for word in made.command)
        if kind == "finetune":
            made.command += ("training.checkpoint_every=2", "profit_tracker.every=2", "training.warmup_steps=1")
        made.before = {base}
    shutil.rmtree(prepared, ignore_errors=True)
    shutil.copytree(cwd, prepared)
    return made
