"""Run folders as a stranger may hand them over: real ones, and one thing in each changed, from a seed."""

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from hfinference import load_model
from hftraining.__main__ import main
from hftraining.core.errors import Ending
from hftraining.experiment.compose import composed
from hftraining.experiment.config import typed_config
from tests.commands import train_here
from tests.runs_of import QUICK, placed, run, trained, tune

MOST_LINES, MOST_SECONDS, MOST_MEMORY = 12, 20.0, 1024 * 1024  # of stderr, of CPU, of kB more than before
TEMPLATES = {
    "resume": ("begun", "begun trees", "begun tune"),
    "replay": ("base", "trees", "tune"),
    "init_from": ("base", "ridge"),
    "compare": ("base", "trees", "tune", "begun"),
    "report": ("base", "begun", "trees", "tune"),
    "leaks": ("base", "ridge", "tune"),
    "load_model": ("base", "trees", "ridge", "tune"),
}
READ = {  # parts of the names of the files that a command reads
    "resume": ("run.json", "config.yaml", "metrics", "checkpoints/"),
    "replay": ("run.json", "config.yaml", "result", "metrics", "model/", "equity", "trades"),
    "init_from": ("run.json", "config.yaml", "result", "model/"),
    "compare": ("run.json", "config", "result", "metrics", ".parquet", "bars.npz"),
    "report": ("run.json", "config", "result", "metrics", ".parquet"),
    "leaks": ("config.yaml", "model/"),
    "load_model": ("model/",),
}
NUMBERS = (-1, 0, 1, 3, 2**31, 10**9, 2**63, 10**400, 0.5, 1e-320, 1e308, float("nan"), float("inf"))
VALUES = (
    None,
    True,
    "",
    "x",
    "../../../x",
    "a" * 20_000,
    "\ud800",
    "\x1b[2J",
    [],
    [1, 2],
    {},
    {"a": {"b": 1}},
    "2020-13-45",
)
TEXTS = ("%\n", "a: *b\n", "x: !!python/object/apply:os.system ['true']\n", "hydra: {run: {dir: x}}\n", "\t\n", "- 1\n")
TEXTS += (
    "model: {}\n",
    "b: &a [1]\nc: [*a, *a]\n",
    "name: ${oc.env:HOME}\n",
    "k: [" * 3000,
    "1: 2\n",
    "\ufeff",
    "\x00",
)


@dataclass
class Outcome:
    """What a command did with a folder. wrong: why it did not end as it must; empty where it did."""

    seed: int
    command: str
    change: str
    code: int | None
    lines: int
    seconds: float
    memory: int  # kB more at the peak than before
    wrong: str
    said: str


def make_templates(bars: Path, folder: Path) -> dict[str, Path]:
    """A folder of each kind of run: finished ones, and such as a kill leaves."""
    plain = [text for text in QUICK if not text.startswith("model")]

    def of_kind(kind: str) -> Path:
        given = [*plain, f"model={kind}", f"stocks.path={bars}", *placed(folder), f"name={kind}"]
        return Path(trained(typed_config(composed(given)))["folder"])

    made = {"base": Path(run(bars, folder)["folder"]), "trees": of_kind("lightgbm"), "ridge": of_kind("ridge")}
    made["tune"] = Path(tune(made["base"], folder, "training.methods=[head]")["folder"])
    for name, whole in (("begun", "base"), ("begun trees", "trees"), ("begun tune", "tune")):
        made[name] = made[whole].with_name(f"killed-{made[whole].name}")
        shutil.copytree(made[whole], made[name], copy_function=os.link)
        for path in (*made[name].glob("*.parquet"), made[name] / "result.json", made[name] / "report.html"):
            path.unlink()
        shutil.rmtree(made[name] / "model")
        if whole == "base":
            shutil.rmtree(made[name] / "checkpoints" / "step_00000006")
    return made


def mutated(seed: int, templates: dict[str, Path], outputs: Path) -> tuple[str, Path, str]:
    """A command, a copy of a run that is no longer what we wrote, and what was changed in it."""
    draw = random.Random(seed)
    command = list(TEMPLATES)[seed % len(TEMPLATES)]
    template = draw.choice(TEMPLATES[command])
    source = templates[template]
    copy = outputs / f"case-{seed}" / source.parts[-3] / source.parts[-2] / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("plotly.min.js", "events.*"))
    done = [_change(draw, command, copy) for _ in range(draw.choice((1, 1, 2, 3)))]
    return command, copy, f"{template}: {'; '.join(done)}"


def _change(draw: random.Random, command: str, copy: Path) -> str:
    """Change one file of a copy, most often one that the command reads."""
    files = sorted(path for path in copy.rglob("*") if path.is_file() and not path.is_symlink())
    if draw.random() < 0.9:
        files = [path for path in files if any(word in str(path.relative_to(copy)) for word in READ[command])] or files
    kind = draw.choice(sorted({path.suffix for path in files}))
    path = draw.choice([file for file in files if file.suffix == kind])
    changes: list[Callable[[random.Random, Path], str]] = [_bytes, _places]
    by_kind = {".json": [_json] * 5, ".jsonl": [_json_line] * 3, ".yaml": [_yaml] * 4 + [_yaml_text] * 2}
    changes += by_kind.get(kind, [_bytes] * 3)
    try:
        what = draw.choice(changes)(draw, path)
    except (ValueError, yaml.YAMLError):  # an earlier change has left nothing to swap in it
        what = _bytes(draw, path)
    if draw.random() < 0.5 and path.is_file():  # whoever changes a model knows how to write its checksum
        _seal(path)
    return f"{path.relative_to(copy)}: {what}"


def tried(seed: int, templates: dict[str, Path], outputs: Path) -> Outcome:
    """Mutate a folder and give it to its command, in this process."""
    command, folder, change = mutated(seed, templates, outputs)
    before, started = _peak(), time.process_time()
    code, _, err = call(command, folder, templates["base"], outputs)
    seconds, memory = time.process_time() - started, _peak() - before
    lines = err.count("\n")
    told = code == 1 and command in ("replay", "leaks") and not err.strip().startswith("Traceback")
    wrong = "" if code in (0, 2, 3) or told else f"exit code {code}"
    wrong = "a traceback" if "Traceback" in err else wrong
    wrong = wrong or (f"{lines} lines" if lines > MOST_LINES else "")
    wrong = wrong or (f"{seconds:.0f} s" if seconds > MOST_SECONDS else "")
    wrong = wrong or (f"{memory:,} kB" if memory > MOST_MEMORY else "")
    wrong = wrong or ("no line" if code == 2 and not err.strip() else "")
    return Outcome(seed, command, change, code, lines, seconds, memory, wrong, err.strip()[-2000:])


def call(command: str, folder: Path, base: Path, outputs: Path) -> tuple[int | None, str, str]:
    """Exit code, output and errors of a command on a run folder, in this process."""
    if command == "resume":
        return caught(lambda: train_here(outputs, f"resume={folder}"))
    if command == "init_from":
        few = ("stocks.symbols=[S0]", "training.methods=[head]", "training.max_steps=2", "training.batch_size=2")
        return caught(lambda: train_here(outputs, f"init_from={folder}", *few, *placed(outputs / "tuned")))
    if command == "load_model":
        return caught(lambda: load_model(folder))
    words = {"compare": ["compare", base, folder, "--to", outputs / "page"], "leaks": ["leaks", folder, "--days", 1]}
    words |= {"report": ["report", folder], "replay": ["replay", folder, "--outputs", outputs / "again"]}
    return caught(lambda: main(list(map(str, words[command]))))


def caught(act: Callable) -> tuple[int | None, str, str]:
    """What an act returns or raises, as a process would end."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            found = act()
            if isinstance(found, tuple):
                code = found[0]
                out.write(found[1])
                err.write(found[2])
            elif isinstance(found, int):
                code = found
        except Ending as end:
            code = end.exit_code
            err.write(f"{end.word}: {end}\n")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code = None
            err.write(traceback.format_exc())
    return code, out.getvalue(), err.getvalue()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _seal(path: Path) -> None:
    """Write the checksum of a changed file into the config.json or state.json beside it."""
    for name in ("config.json", "state.json"):
        beside = path.parent / name
        if not beside.is_file() or beside.is_symlink():  # an earlier change may have left a pipe
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError):
            known = json.loads(beside.read_text())
            if path.name in known["sha256"]:
                known["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
                beside.write_text(json.dumps(known))


def _spots(value: object, path: tuple = ()) -> list[tuple]:
    found = [path]
    if isinstance(value, dict):
        found += [spot for key, item in value.items() for spot in _spots(item, (*path, key))]
    if isinstance(value, list):
        found += [spot for key, item in enumerate(value[:5]) for spot in _spots(item, (*path, key))]
    return found


def _swapped(draw: random.Random, value: object) -> tuple[object, str]:
    spots = _spots(value)
    spot = draw.choice(spots[1:] if len(spots) > 1 and draw.random() < 0.95 else spots)
    new = draw.choice(NUMBERS if draw.random() < 0.5 else VALUES)
    if not spot:
        return new, f"becomes {str(new)[:30]!r}"
    place = value
    for key in spot[:-1]:
        place = place[key]  # type: ignore[index]
    name = ".".join(map(str, spot))
    kind = draw.random()
    if kind < 0.15 and isinstance(place, dict):
        del place[spot[-1]]
        return value, f"{name} is gone"
    if kind < 0.25 and isinstance(place, dict):
        place[f"{spot[-1]}x"] = place.pop(spot[-1])
        return value, f"{name} has another name"
    place[spot[-1]] = new  # type: ignore[index]
    return value, f"{name} = {str(new)[:30]!r}"


def _json(draw: random.Random, path: Path) -> str:
    value, what = _swapped(draw, json.loads(path.read_text()))
    path.write_text(json.dumps(value))
    return what


def _json_line(draw: random.Random, path: Path) -> str:
    lines = path.read_text().splitlines()
    if not lines:
        path.write_text('{"step": "x"}\n')
        return "a step that is none"
    number = draw.randrange(len(lines))
    value, what = _swapped(draw, json.loads(lines[number]))
    lines[number] = json.dumps(value)
    path.write_text("\n".join(lines) + "\n")
    return f"line {number + 1}: {what}"


def _yaml(draw: random.Random, path: Path) -> str:
    value, what = _swapped(draw, yaml.safe_load(path.read_text()))
    path.write_text(yaml.safe_dump(value, allow_unicode=False).replace("\\uD800", "\\ud800"))
    return what


def _yaml_text(draw: random.Random, path: Path) -> str:
    text, more = path.read_text(), draw.choice(TEXTS)
    path.write_text(more + text if draw.random() < 0.3 else text + more)
    return f"more text, {more[:20]!r}"


def _bytes(draw: random.Random, path: Path) -> str:
    content = bytearray(path.read_bytes())
    kind = draw.choice(("cut", "flipped", "flipped", "noise", "empty", "longer"))
    if kind == "cut":
        content = content[: draw.randrange(len(content) + 1)]
    elif kind == "flipped":
        for _ in range(draw.randint(1, 3) if content else 0):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        content = bytearray({"noise": draw.randbytes(2000), "empty": b"", "longer": content + draw.randbytes(99)}[kind])
    path.unlink()  # a template may share the file
    path.write_bytes(content)
    return f"bytes {kind}"


def _places(draw: random.Random, path: Path) -> str:
    kind = draw.choice(("gone", "a folder", "a link", "a ring", "a pipe", "stray", "a link beside it"))
    if kind == "stray":
        (path.parent / "step_abc").mkdir()
        (path.parent / "step_00000099").write_text("no folder")
    elif kind == "a link beside it":
        (path.parent / "more").symlink_to("/etc/hostname")
    else:
        path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link":
        path.symlink_to("/etc/passwd")
    elif kind == "a ring":
        path.symlink_to("..", target_is_directory=True)
    elif kind == "a pipe":
        os.mkfifo(path)
    return kind
