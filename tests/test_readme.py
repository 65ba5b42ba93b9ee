"""Every Python and shell block of README.md and docs/*.md, run in the order of its page, in one temporary folder.

Lines run as they are written, but for what would take minutes, a network, or the reader's own files:

- `python train.py` gets the overrides of TINY that a line does not set itself: a network of one layer, four steps, few
  draws, one day of the leak proof. On the sample it also gets SOME: ten of its stocks from 2011 to 2017. A fine-tune
  gets FEW, a search ONE_TRIAL (one final seed and worker, two folds at most), and --help, -sc and resume= nothing.
  Lines run in this process, which saves the imports.
- `python -m hftraining` and `hfinference` get what SHORTER has for a command. `leaks --gallery` and `replay
  --from-commit`, which take minutes or a clean repository, are only parsed; tests/experiment runs them.
- The scripts of the specification get SCRIPTS, TINY as --set and FEW as --finetune-set, and one method. `cd` only looks
  whether the folder holds them; tests/test_specification.py runs them from inside it.
- Calls in Python that train get TINY as their settings, and FEWER steps and epochs.
- RUN is the folder of the first run of the page, from "RUN below" on that of this line; for resume=RUN it is a run that
  was stopped. A second RUN of a line is another run.
- Yahoo is a server on the loopback. my_bars, hours.parquet and deutsch.csv are random walks, account.json and
  weights.csv are small.
- Of make the targets must exist. A line whose extra is not installed must end in one line that names it.
- A `json` block must be read as JSON. A `console` block shows what its command prints; the first `text` block what the
  first run does, with "..." for what varies.
"""

import ast
import contextlib
import functools
import importlib.metadata
import io
import json
import re
import shlex
import signal
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from hfinference import __main__ as commands_of_models
from hftraining import __main__ as commands_of_runs
from hftraining import base_model_trainer, train_with_profit
from hftraining.core.command import run_command
from tests.bars_of import make_bars
from tests.commands import ROOT, ended, start_train, train_here, wait_for
from tests.yahoo_server import Chart, serving

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = ("sh", "console", "text", "python", "json")
# Of what the first run prints: numbers, and the words that depend on them.
VARIES = re.compile(r"\S*\d\S*|earned|lost|indistinguishable from chance|best so far, |\.\.\.")

SHAPE = ("model.hidden_size=8", "model.num_layers=1", "model.num_heads=2", "model.context=8")
STEPS = ("training.max_steps=4", "training.window=32", "training.warmup_steps=1", "profit_tracker.every=2")
DRAWS = (
    "training.threads=1",
    "evidence.leak_days=1",
    "evidence.null_draws=20",
    "evidence.bootstrap_draws=100",
    "evidence.baselines=[momentum_top]",
)
TINY = (*SHAPE, *STEPS, "training.batch_size=4", "training.symbols_per_window=4", *DRAWS)
FEW = ("training.max_steps=2", "training.batch_size=2", "training.warmup_steps=1", *DRAWS)
NAMES = "AAPL,AMZN,C,GE,IBM,INTC,JPM,KO,MSFT,XOM"  # as few as are forecast relative to each other
SOME = (f"stocks.symbols=[{NAMES}]", "stocks.start=2011-06-01", "stocks.end=2017-03-31")
ONE_TRIAL = ("hydra.sweeper.n_trials=1", "search.final_seeds=1", "search.workers=1", "search.folds=2")
COUNTS = tuple(text.partition("=")[0] for text in ONE_TRIAL)
SHORTER = {
    "leaks": ("--days", "1"),
    "portfolios": ("--kinds", "long_short"),
    "evaluate": ("evidence.null_draws=20", "evidence.bootstrap_draws=100"),
}
PARSED = ("--gallery", "--from-commit")
SCRIPTS = {
    "train_with_profit.py": ("--steps", "3", "--jobs", "1"),
    "base_model_trainer.py": ("--base-steps", "3", "--finetune-epochs", "1"),
}
FEWER = {"max_steps": 3, "steps": 3, "num_epochs": 1, "batch_size": 4}  # arguments in Python
EXTRA = re.compile(r'pip install (?:--quiet )?-e "\.\[(\w+)\]"')


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


@functools.cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def extras() -> dict[str, list[str]]:
    return project()["optional-dependencies"]


def is_installed(extra: str) -> bool:
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in extras()[extra]]
    try:
        return all(importlib.metadata.version(name) for name in names)
    except importlib.metadata.PackageNotFoundError:
        return False


def place(folder: Path) -> Path:
    """The reader's own files."""
    walks = make_bars(n_sessions=760, n_symbols=3, seed=2, missing=0.0)
    own = folder / "my_bars"
    own.mkdir()
    tables = {}
    for s, symbol in enumerate(("ABC", "DEF", "XYZ")):
        columns = {name: getattr(walks, f"{name}_TS")[:, s] for name in ("open", "high", "low", "close", "volume")}
        tables[symbol] = pd.DataFrame({"date": walks.sessions_T.astype("datetime64[s]"), **columns})
        tables[symbol].to_csv(own / f"{symbol}.csv", index=False)
    daily = tables["ABC"].assign(symbol="ABC")
    twice = [daily.assign(date=daily["date"] + pd.Timedelta(hours=hour)) for hour in (10, 15)]
    pd.concat(twice).to_parquet(folder / "hours.parquet")
    german = tables["DEF"].assign(date=tables["DEF"]["date"].dt.strftime("%d.%m.%Y"))
    german.columns = ["Datum", "Erster", "Hoch", "Tief", "Schluss", "Volumen"]
    german.to_csv(folder / "deutsch.csv", sep=";", decimal=",", index=False)
    (folder / "account.json").write_text('{"cash": 2500.0, "positions": {"AAPL": 10, "MSFT": 3}}')
    weights = [("2014-01-06", "AAPL", 0.5), ("2014-01-06", "MSFT", 0.5), ("2015-03-02", "AAPL", 1.0)]
    pd.DataFrame(weights, columns=["date", "symbol", "weight"]).to_csv(folder / "weights.csv", index=False)
    return folder


def charts() -> dict[str, Chart]:
    """What the stand-in for Yahoo knows: random walks from 2018 to 2023."""
    symbols = "AAPL MSFT GOOGL AMZN META NVDA TSLA AMD NFLX AVGO".split()
    days = np.datetime_as_string(np.busday_offset("2018-06-01", np.arange(1400), roll="forward")).tolist()
    closes_TS = 50 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, (len(days), len(symbols))), axis=0))
    return {
        symbol: Chart(symbol, [(d, c, c * 1.01, c * 0.99, c, c, 1000) for d, c in zip(days, closes, strict=True)])
        for symbol, closes in zip(symbols, closes_TS.T.tolist(), strict=True)
    }


class Reader:
    """Somebody who types the blocks of one page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: str | None = None
        self.runs: list[str] = []  # base runs in their order
        self.first_output = ""
        self.namespace: dict = {}

    def shell(self, line: str) -> None:
        words = shlex.split(line, comments=True)
        extra = EXTRA.search(line)
        if words[:2] == ["python", "train.py"]:
            self.train(words[2:], line, extra and extra[1])
        elif words[:3] == ["python", "-m", "hftraining"]:
            self.command(words[3:])
        elif words[:3] == ["python", "-m", "hfinference"]:
            words = [*self.with_runs(words[3:]), *SHORTER.get(words[3], ())]
            assert self.inside(commands_of_models.main, words)[1]
        elif words[0] == "python" and words[1] in SCRIPTS:
            self.script(words[1], words[2:])
        elif words[0] == "cd":
            assert all((ROOT / words[1] / name).is_file() for name in SCRIPTS)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif inner := re.fullmatch(r'eval "\$\((python .+)\)"', line.partition("  #")[0].strip()):
            self.shell(inner[1])
        else:
            raise AssertionError("no rule for such a line")

    def train(self, words: list[str], line: str, extra: str | None) -> None:
        words = [f"resume={self.stopped()}"] if words == ["resume=RUN"] else self.with_runs(words)
        is_whole = bool({"--help", "-sc"} & set(words)) or (words[:1] and words[0].startswith("resume="))
        code, out, err = train_here(self.folder, *(words if is_whole else tiny(words)))
        if extra and not is_installed(extra):
            assert code == 2 and err.count("\n") == 1 and f"[{extra}]" in err, err
            return
        assert code == 0 and out, err
        self.first_output = self.first_output or out
        if found := re.search(r"^run: (outputs/base/.+)$", out.splitlines()[-1] if out else ""):
            self.runs.append(found[1])
            if self.run is None or "RUN below" in line:
                self.run = found[1]

    def command(self, words: list[str]) -> None:
        words = self.with_runs(words)
        if set(PARSED) & set(words):
            commands_of_runs._commands().parser.parse_args(words)
            return
        code, out = self.inside(commands_of_runs.main, [*words, *SHORTER.get(words[0], ())])
        assert code == 0 and out

    def script(self, name: str, words: list[str]) -> None:
        words, module = self.with_runs(words), {"train_with_profit.py": train_with_profit}.get(name, base_model_trainer)
        assert isinstance(module, ModuleType)
        based = "--base-model" in words or name == "base_model_trainer.py"
        new_base = based and "outputs/" not in " ".join(words)
        few = (*SCRIPTS[name], *(("--base-steps", "3") if new_base else ()), "--threads", "1")
        few += ("--methods", "head", "--finetune-set", *FEW) if based else ()
        few += ("--set", *alone(TINY))
        if name == "base_model_trainer.py":
            few += ("--batch-size", "4")
        code, out = self.inside(lambda arguments: run_command(module.main, arguments), [*words, *few])
        assert code == 0 and "  run: outputs/" in out, out

    def inside(self, function, words: list[str]) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = function(words)
            except SystemExit as stopped:
                code = stopped.code
        assert code == 0, out.getvalue()
        return code, out.getvalue()

    def stopped(self) -> str:
        """The folder of a run that was stopped at its first probe."""
        longer = [text for text in tiny(["stocks=folder", "stocks.path=my_bars"]) if "max_steps" not in text]
        process = start_train(self.folder, *longer, "training.max_steps=300", "training.patience=0", "name=stopped")
        folder = self.folder / "outputs" / "base" / "stopped"
        logs = wait_for(lambda: [path for path in folder.glob("*/metrics.jsonl") if path.stat().st_size], process)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
        assert code == 3 and "resume=" in err, err
        return str(logs[0].parent.relative_to(self.folder))

    def with_runs(self, words: list[str]) -> list[str]:
        """The words with a run in the place of RUN, and another in that of a second one."""
        named = iter([self.run, *(run for run in reversed(self.runs) if run != self.run)])
        return [re.sub(r"\bRUN\b", lambda _: next(named), word) for word in words]

    def python(self, code: str) -> None:
        tree = ast.fix_missing_locations(Shorter().visit(ast.parse(code.replace('"RUN"', repr(self.run)))))
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(tree, "a block", "exec"), self.namespace)

    def console(self, text: str) -> None:
        command, *printed = text.rstrip("\n").split("\n")
        assert command.startswith("$ python train.py ")
        code, out, err = train_here(self.folder, *shlex.split(command)[3:])
        assert (out + err).splitlines() == printed and code == (2 if printed[0].startswith("error: ") else 0)

    def text(self, text: str) -> None:
        """The first text shows what the first run of a page prints, line by line and in order."""
        lines = iter([" ".join(line.split()) for line in self.first_output.splitlines()])
        for wanted in text.splitlines():
            pattern = ".*".join(map(re.escape, VARIES.split(" ".join(wanted.split()))))
            assert any(re.fullmatch(pattern, line) for line in lines), f"not printed: {wanted}"


class Shorter(ast.NodeTransformer):
    """Calls that train get TINY as settings, and few steps and epochs."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        for keyword in node.keywords:
            if keyword.arg in FEWER:
                keyword.value = ast.Constant(FEWER[keyword.arg])
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        settings = [*alone(TINY), *SOME[1:]]
        if name in ("BaseModelTrainer", "train_single_stock_with_profit"):
            node.keywords.append(ast.keyword("settings", ast.parse(repr(settings), mode="eval").body))
        if name == "BaseModelTrainer":
            tuned = [*FEW, "training.methods=[head]"]
            node.keywords.append(ast.keyword("finetune_settings", ast.parse(repr(tuned), mode="eval").body))
        return node


def alone(overrides: tuple[str, ...]) -> list[str]:
    """Those for runs on any number of stocks."""
    return [text for text in overrides if not text.startswith("training.symbols_per_window")]


def tiny(words: list[str]) -> list[str]:
    """A command line of train.py with what makes it quick."""
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    if any(word.startswith("init_from=") for word in words):
        return [*words, *(text for text in FEW if text.partition("=")[0] not in keys)]
    more = [*TINY]
    if {"ridge", "lightgbm"} & set(re.split("[=,]", " ".join(words).replace(" ", ","))):
        more = [text for text in more if not text.startswith("model.")]
    if "+best" not in keys and not {"stocks=tech10", "stocks=single", "stocks=folder", "stocks=sample5"} & set(words):
        more += SOME
    if "search" in keys:
        folded = ONE_TRIAL if "search.folds" in keys else ONE_TRIAL[:-1]
        words = [*(word for word in words if not word.startswith(COUNTS)), *folded]
    return [*words, *(text for text in more if text.partition("=")[0] not in keys)]


@pytest.fixture(scope="module")
def yahoo(tmp_path_factory):
    """The stand-in for Yahoo, to which every line of this module is sent."""
    with serving(tmp_path_factory.mktemp("authority")) as server, pytest.MonkeyPatch.context() as patch:
        server.charts = charts()
        for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            patch.setenv(name, server.ca_file)
        for name, value in {"HTTPS_PROXY": server.proxy, "NO_PROXY": ""}.items():
            patch.setenv(name, value)
            patch.setenv(name.lower(), value)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_block_runs_as_it_is_written(page, yahoo, tmp_path):
    reader = Reader(place(tmp_path))
    texts, faults = [], []
    for kind, block in blocks(page):
        for piece in [line for line in block.splitlines() if line.strip()] if kind == "sh" else [block]:
            try:
                if kind == "text":
                    texts.append(piece)
                else:
                    {"sh": reader.shell, "python": reader.python, "console": reader.console, "json": json.loads}[kind](
                        piece
                    )
            except Exception as error:
                faults.append(f"{piece.strip()}\n    {type(error).__name__}: {str(error)[:2000]}")
    for text in texts:
        reader.text(text)
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_of_a_known_kind_and_what_a_page_names_is_there(page):
    text = page.read_text()
    assert text.count("```") == 2 * len(blocks(page)) and {kind for kind, _ in blocks(page)} <= set(KINDS)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for extra in EXTRA.findall(text):
        assert extra in extras(), extra
    for program in re.findall(r"`(tensorboard|optuna-dashboard) ", text):
        asked_for = [name for names in (project()["dependencies"], *extras().values()) for name in names]
        assert any(name.startswith(program) for name in asked_for), program
