"""Random command lines and random config files, the same for the same seed."""

import random
from pathlib import Path

from hftraining.core.values import flatten
from hftraining.experiment.compose import composed, register
from hftraining.experiment.config import CONF
from hftraining.sweep.config import Command

PREFIXES = ("", "", "", "", "+", "++", "~")
VALUES = (
    *("0", "-1", "1", "2", "3", "7", "0.5", "-0.5", "2147483648", "1000000000", "99999999999999999999999", "0x10"),
    *("1e308", "-1e308", "1e-320", "1e400", "nan", "inf", "-inf", ".5", "1_000", "null", "true", "false", "", " "),
    *("[]", "{}", "[nan]", "[inf]", "[[1]]", "[null]", "[1,2]", "[1,1]", "[-1]", "[a,b]", "[0.5]", "[0.1,0.5,0.9]"),
    *("{a:1}", "{a:{b:[1]}}", "[{a:1}]", "{1:2}", "{_target_:os.getcwd}", "{a:null}", "x", "a b", "a,b", "1,2"),
    *("'", '"', "\\", "$", "${", "${}", "${x}", "${seed}", "${name}", "${..x}", "${model}", "${oc.env:HOME}"),
    *("${oc.env:NO_SUCH_VARIABLE}", "${oc.decode:'[1,2]'}", "${oc.decode:'${'}", "${oc.create:{a:1}}", "${now:%Y}"),
    *("${hydra:job.name}", "${hydra:runtime.cwd}", "${oc.select:a,3}", "${oc.dict.keys:model}", "${nosuch:1}", "???"),
    *("choice(1,2)", "range(1,3)", "interval(0,1)", "glob(*)", "sort(3,1)", "shuffle(1,2)", "tag(a,choice(1))"),
    *("float(x)", "int(1.5)", "str(1)", "bool(x)", "json_str({a:1})", "extend_list(1)", "f(x)", "a=b", "=", "a:b"),
    *(
        "/proc/x",
        "/dev/null",
        "..",
        "../..",
        ".",
        "/",
        "nowhere/at/all",
        "a\nb",
        "\t",
        "\x1b[31mred",
        "\u202e",
        "\u00fc",
    ),
    *("\U0001f600", "\udcff", "\x00", "!!python/object:os.system", "&a", "*a", "[" * 200, "{a:" * 30, "x" * 5_000),
    "[" + ",".join("1" * 400) + "]",
    "[" + ",".join(f"S{n}" for n in range(9_000)) + "]",
    "[" * 20 + "1" + "]" * 20,
    "x" * 100_000,
)
_NUMBERS = tuple("0 1 2 3 4 5 8 16 24 64 100 1000 100000 10000000 9007199254740993 0.0 0.001 0.1 0.5 0.9 1.5".split())
_NUMBERS += ("1e-9", "1e-300", "1e9", "1e300", "-1", "-0.1", "-0.0")
_WORDS = tuple("true false null edge sign top head open close cpu cuda fp32 bf16 full lora eval/loss S0 S1".split())
_WORDS += tuple("profit/sharpe_ratio ridge lightgbm momentum transformer 2015-06-01 2016-01-04 2099-01-01 drop".split())
HYDRAS = (
    *("hydra", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir", "hydra.job.name"),
    *("hydra.job.env_set", "hydra.job.env_copy", "hydra.output_subdir", "hydra.verbose", "hydra.mode", "hydra.sweeper"),
    *("hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/hydra_logging", "hydra/help", "hydra/output"),
    *("hydra.callbacks", "hydra.callbacks.x", "hydra.launcher", "hydra.launcher.n_jobs", "hydra.searchpath"),
    *("hydra.sweeper.n_trials", "hydra.sweeper.params", "hydra.sweeper.max_batch_size", "hydra.job_logging.root"),
    *("hydra.job_logging.disable_existing_loggers", "hydra.hydra_logging", "hydra.runtime.cwd", "hydra.help.template"),
    *("hydra.overrides.task", "hydra.job.config.override_dirname.kv_sep", "hydra.env", "hydra.job.num", "hydra.nosuch"),
)
GROUPS = ("model", "stocks", "training", "profit_tracker", "objective", "evidence", "experiment", "search")
OPTIONS = (
    *("--cfg", "--cfg job", "--cfg all", "--cfg x", "-c hydra", "--cfg job --resolve", "--resolve", "--info", "-i"),
    *("--info all", "--info defaults", "--info defaults-tree", "--info config", "--info searchpath", "--info x"),
    *(
        "--info plugins",
        "--config-dir",
        "--config-dir nowhere",
        "--config-dir .",
        "-cd /proc",
        "--config-name",
        "-cn x",
    ),
    *("--config-name config", "-cn model/tiny", "--config-path nowhere", "-cp .", "--package model --cfg job", "-m"),
    *("--cfg job --package nosuch", "--multirun", "--run", "-r -m", "-sc query=bash", "-sc", "-sc install=bash"),
    *("--help", "-h", "--hydra-help", "--version", "--experimental-rerun x", "--foo", "-x", "--", "-", "-m -m"),
)
STRAY = ("", " ", "=", "~", "+", "~~", "+=", "x", "a.b", ".", "..=1", "a..b=1", "=1", "@", "model@x=tiny", "~model")
STRAY += ("model.=1", ".model=1", "~seed=3", "+x=1", "++x.y.z=[1]", "+best=nowhere/best/k.yaml", "resume=nowhere")
STRAY += ("init_from=nowhere", "resume=.", "init_from=/", "search=profit", "seed=1,2", "model=tiny,small", "$(x)")
STRAY += ("model@_global_=tiny", "+model@stocks=tiny", "/model=tiny", "stocks=folder,sample", "a" * 3_000 + "=1")


def mutated_overrides(seed: int) -> list[str]:
    """One to three arguments of train.py that are probably wrong."""
    rng = random.Random(seed)
    words: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        words += rng.choices(
            (_field, _fitting, _group, _hydra, _option, _stray, _garbled, _sweep), weights=(5, 8, 3, 3, 2, 2, 3, 1)
        )[0](rng)
    return words


def _field(rng: random.Random) -> list[str]:
    return [f"{rng.choice(PREFIXES)}{rng.choice(_fields())}={rng.choice(VALUES)}"]


def _fitting(rng: random.Random) -> list[str]:
    """A field with a value of its own type, however odd."""
    name = rng.choice(_fields())
    value = flatten(_tree())[name]
    numbers = [number for number in _NUMBERS if isinstance(value, float) or "." not in number]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return [f"{name}={rng.choice(_WORDS)}"]
    if isinstance(value, list):
        return [f"{name}=[{','.join(rng.choices(_NUMBERS + _WORDS, k=rng.randint(1, 3)))}]"]
    return [f"{name}={rng.choice(numbers)}"]


def _sweep(rng: random.Random) -> list[str]:
    """A small study with an odd setting."""
    setting = f"{rng.choice(_fields(search=True))}={rng.choice((*VALUES, *_NUMBERS))}"
    return ["-m", "search=profit", "search.n_trials=1", setting] if rng.random() < 0.8 else [setting]


def _group(rng: random.Random) -> list[str]:
    group = rng.choice(GROUPS)
    options = [path.stem for path in (CONF / group).glob("*.yaml")]
    value = rng.choice((*sorted(options), *rng.sample(VALUES, 3)))
    return [f"{rng.choice(PREFIXES)}{group}={value}"]


def _hydra(rng: random.Random) -> list[str]:
    return [f"{rng.choice(PREFIXES)}{rng.choice(HYDRAS)}={rng.choice(VALUES)}"]


def _option(rng: random.Random) -> list[str]:
    return rng.choice(OPTIONS).split()


def _stray(rng: random.Random) -> list[str]:
    return [rng.choice(STRAY)]


def _garbled(rng: random.Random) -> list[str]:
    """A valid override with some letters changed."""
    name = rng.choice(_fields())
    text = f"{name}={flatten(_tree())[name]}"
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text) + 1)
        letter = rng.choice("=.,:[]{}()'\"\\$+~@-_ \t\nab01\u00e9")
        text = text[:place] + rng.choice(("", letter, letter * 2)) + text[place + rng.randint(0, 2) :]
    return [text]


def _tree() -> dict:
    if not _TREE:
        register(Command)  # with the settings of a search
        _TREE.update(composed(["search=profit"], resolve=False, search=True))
    return _TREE


def _fields(search: bool = False) -> list[str]:
    """The fields of a run, or of a search."""
    return [name for name in flatten(_tree()) if name.startswith("search.") == search]


_TREE: dict = {}

# --- config files -----------------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
PIECES = (
    *("[", "]", "{", "}", ":", "- ", "!!python/object/apply:os.getcwd []", "!!binary x", "!x y", "&a", "*a", "<<: *a"),
    *(
        "\t",
        "\n",
        "\n\n  ",
        "'",
        '"',
        "|",
        ">",
        "%YAML 9.9",
        "---\n",
        "...\n",
        "# @package x.y\n",
        "# @package _global_\n",
    ),
    *("\x00", "\x07", "\ufeff", "\u2028", "${", "${x}", "${oc.env:HOME}", "???", "null", "~", "nan", ".inf", "1e999"),
    *("defaults: [x]\n", "defaults:\n  - _self_\n  - nosuch: x\n", "defaults: 3\n", "name: ${name}\n", "hydra: 3\n"),
    *("? a\n: b\n", "[" * 100, "- " * 2_000, "{a: " * 60, "x: " + "y" * 10_000, "1: 2\n", "true: 1\n", "? [1]\n: 2\n"),
    *("2020-01-01", "0o17", "0b1", "1:30", "\\", '"\\ud800"', '"\\x00"', "seed: 1\nseed: 2\n", BOMB, "a: &a [*a]\n"),
)
BYTES = (b"\xff", b"\xfe\xff", b"\xc3\x28", b"\x80", b"\x00\x00", b"\xef\xbb\xbf", b"\xff\xfe[\x00]\x00")


def mutate_a_file(conf: Path, seed: int) -> str:
    """Change one file of a copy of conf/ that a default run reads, or an option; returns what was done."""
    rng = random.Random(seed)
    path = conf / rng.choice(
        (
            "config.yaml",
            "model/tiny.yaml",
            "stocks/folder.yaml",
            "training/quick.yaml",
            "objective/mixed.yaml",
            "evidence/default.yaml",
            "profit_tracker/default.yaml",
        )
    )
    data = bytearray(path.read_bytes())
    done = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(data) + 1)
        how = rng.choice(("insert", "insert", "value", "value", "value", "bytes", "cut", "swap", "double", "line"))
        if how == "insert":
            data[place:place] = rng.choice(PIECES).encode("utf-8", "surrogatepass")
        elif how == "bytes":
            data[place:place] = rng.choice(BYTES)
        elif how == "cut":
            del data[place : place + rng.randint(1, 40)]
        elif how == "swap" and data:
            data[min(place, len(data) - 1)] = rng.randrange(256)
        elif how == "value":
            data = bytearray(_with_another_value(rng, data.decode("utf-8", "replace")).encode("utf-8", "surrogatepass"))
        elif how == "double":
            data += bytes(data)
        else:  # a piece on a line of its own
            lines = bytes(data).split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(PIECES).encode("utf-8", "surrogatepass"))
            data = bytearray(b"\n".join(lines))
        done.append(f"{how} at {place}")
    path.write_bytes(bytes(data))
    return f"{path.relative_to(conf)}: {', '.join(done)}"


def _with_another_value(rng: random.Random, text: str) -> str:
    """YAML with the value of one key replaced, so that it mostly remains YAML; or with one more key."""
    lines = text.split("\n")
    number = rng.randrange(len(lines))
    head, colon, _ = lines[number].partition(":")
    names = [name.rpartition(".")[2] for name in _fields()]
    head = head if colon and not head.lstrip().startswith("#") else rng.choice(names)
    lines[number] = f"{head}: {rng.choice((*VALUES, *PIECES))}"
    return "\n".join(lines)
