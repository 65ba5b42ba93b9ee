"""The structure of the house: imports run down only, and only certain files know certain libraries."""

import ast
import functools
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "core": 1,
    "market": 2,
    "trading": 2,
    "runs": 2,
    "model": 3,
    "evidence": 3,
    "portfolio": 3,
    "profit_tracker": 4,
    "training": 4,
    "reports": 4,
    "experiment": 5,
    "sweep": 6,
    "base_model_trainer": 6,
    "__main__": 6,
    "hfinference": 6,
    "train_with_profit": 7,
    "train": 7,
    "hydra_plugins": 7,
}
ONLY_KNOWN_BY = {
    "tensorboard": {"hftraining/runs/board.py"},
    "hydra": {
        "train.py",
        "hydra_plugins/hftraining_sweeper.py",
        "hftraining/experiment/compose.py",
        *(f"hftraining/sweep/{name}.py" for name in ("space", "sweeper", "worker")),
    },
    "omegaconf": {
        "train.py",
        "hftraining/experiment/config.py",
        "hftraining/experiment/compose.py",
        *(f"hftraining/sweep/{name}.py" for name in ("settings", "space", "sweeper", "worker")),
    },
    "optuna": {
        f"hftraining/sweep/{name}.py" for name in ("conclusion", "page", "serve", "storage", "strange", "study")
    },
    "yfinance": {"hftraining/market/yahoo.py"},
    "exchange_calendars": {"hftraining/market/sessions.py"},
    "skfolio": {"hftraining/portfolio/optimized.py"},
    "ray": {"hftraining/experiment/on_ray.py"},
    "alpaca": {"hfinference/live/brokers.py"},
    "requests": {"hfinference/live/brokers.py", "hfinference/live/wire.py"},
}
# A command imports late what only a valid call needs, and every start of Hydra, completion too, imports the plugin.
COMMANDS = "hfinference/commands/"
MAY_IMPORT_LATE = {"train.py", "hftraining/__main__.py", "hydra_plugins/hftraining_sweeper.py"}
# LightGBM, skfolio, Ray and alpaca-py are optional extras. Importing yfinance takes half a second, which offline runs
# save, arch two seconds, which a refused config and a forecast save, and a calendar is loaded only for bars that an
# exchange may have made.
OF_ALPACA = {"alpaca", "requests", "urllib3"}
OPTIONAL = {"lightgbm", "skfolio", "ray", "yfinance", "curl_cffi", "arch", "exchange_calendars", *OF_ALPACA}
PACKAGES = ("hftraining", "hfinference", "hydra_plugins")
HEAVY = {"torch", "yfinance", "plotly", "optuna", "pandas", "numba", "scipy", "numpy"}


def sources(root: Path = ROOT) -> list[Path]:
    packages = [path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]
    return [root / "train.py", *packages]


def imports(path: Path, *, at_the_top: bool = False) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too unless at_the_top."""
    return _imports_of(path.read_text(), at_the_top)


parsed = functools.cache(ast.parse)  # each file is looked at by several tests


@functools.cache
def _imports_of(source: str, at_the_top: bool) -> set[str]:
    tree = parsed(source)
    found = set()
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return parts[0] if len(parts) == 1 or parts[0] != "hftraining" else parts[1]


def arrows(root: Path = ROOT) -> dict[tuple[str, str], list[str]]:
    """Pairs of rooms, importing and imported, with every such import: "FILE imports NAME"."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sources(root):
        own = room(path, root)
        for name in sorted(imports(path)):
            parts = name.split(".")
            known = parts[1] if parts[0] == "hftraining" else parts[0] if parts[0] in FLOORS else own
            if known != own:
                found.setdefault((own, known), []).append(f"{path.relative_to(root)} imports {name}")
    return found


def wrong_imports(root: Path = ROOT) -> list[str]:
    return [text for (own, known), texts in arrows(root).items() if FLOORS[known] >= FLOORS[own] for text in texts]


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def late_imports(source: str) -> set[str]:
    """The modules that functions import, without optional libraries."""
    nodes = [node for function in functions(parsed(source)) for node in ast.walk(function)]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found = plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in found if name.split(".")[0] not in OPTIONAL}


def circles(root: Path = ROOT) -> list[str]:
    """Files of the package that lie on a circle of imports."""
    modules = {".".join(path.relative_to(root).with_suffix("").parts): path for path in sources(root)}
    known = {
        name: {m for i in imports(path) for m in accumulate(i.split("."), "{}.{}".format) if "." in m and m in modules}
        for name, path in modules.items()
    }

    def reaches(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for target in known[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    return [name for name in modules if name in reaches(name)]


def test_every_room_stands_on_a_floor():
    assert {room(path, ROOT) for path in sources()} - {"__init__"} == set(FLOORS)


def test_imports_run_down_only():
    assert wrong_imports() == []


def test_the_house_is_small():
    assert len(FLOORS) <= 18 and max(FLOORS.values()) <= 7
    own = {arrow for arrow in arrows() if arrow[0] == "hfinference"}  # which puts all of the others to work
    assert len(set(arrows()) - own) <= 57 and len(own) <= 10, sorted(arrows())


def test_market_trading_and_runs_do_not_know_each_other():
    apart = {"market", "trading", "runs"}
    assert [arrow for arrow in arrows() if set(arrow) <= apart] == []


def test_paper_trading_is_known_to_its_commands_alone():
    live = ROOT / "hfinference" / "live"
    others = [path for path in sources() if path.parts[-2] not in ("live", "commands") and live not in path.parents]
    known = {str(path.relative_to(ROOT)) for path in others if any(".live." in name for name in imports(path))}
    assert known == {"hfinference/__init__.py"}  # which imports a name when it is first used


def test_a_file_has_at_most_400_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_a_function_has_at_most_60_lines():
    lengths = {
        f"{path.relative_to(ROOT)}: {function.name}": function.end_lineno - function.lineno + 1
        for path in sources()
        for function in functions(parsed(path.read_text()))
    }
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_imports_stand_at_the_top_of_a_file():
    late = {str(path.relative_to(ROOT)): late_imports(path.read_text()) for path in sources()}
    wrong = {name: found for name, found in late.items() if found and name not in MAY_IMPORT_LATE}
    assert {name: found for name, found in wrong.items() if not name.startswith(COMMANDS)} == {}


def test_a_late_import_would_be_seen():
    assert late_imports("import a\nif a:\n    import b\ndef f():\n    import lightgbm\n    from c import d\n") == {"c"}


def test_no_file_lies_on_a_circle_of_imports():
    assert circles() == []


def test_a_wrong_import_would_be_seen(tmp_path):
    for path in sources():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    features = tmp_path / "hftraining/market/features/table.py"
    features.write_text(
        features.read_text() + "\n\ndef late():\n    from hftraining.trading.config import TradingRules\n"
    )
    assert wrong_imports(tmp_path) == [
        "hftraining/market/features/table.py imports hftraining.trading.config.TradingRules"
    ]
    windows = tmp_path / "hftraining/market/windows.py"
    features.write_text(features.read_text() + "    import hftraining.market.windows\n")
    windows.write_text(windows.read_text() + "\nimport hftraining.market.features.table\n")
    assert {"hftraining.market.features.table", "hftraining.market.windows"} <= set(circles(tmp_path))


@pytest.mark.parametrize("library", ONLY_KNOWN_BY)
def test_a_library_is_known_only_by_the_files_that_may_know_it(library):
    knowing = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert knowing <= ONLY_KNOWN_BY[library]


def test_help_and_completion_import_only_light_modules():
    seen, todo = set(), [ROOT / "train.py"]
    while todo:
        path = todo.pop()
        seen.add(path)
        names = imports(path, at_the_top=True)
        assert not {name.split(".")[0] for name in names} & HEAVY, f"{path} imports something heavy at its top"
        for name in names:
            parts = name.split(".")
            if parts[0] == "hftraining":
                module = ROOT.joinpath(*parts[:-1]).with_suffix(".py")
                if module.exists() and module not in seen:
                    todo.append(module)
    assert len(seen) >= 6


def test_the_commands_of_hfinference_import_only_light_modules_for_their_help():
    code = "import sys\nfrom hfinference.__main__ import main\nassert main(['--help']) == 0\nprint(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "usage: python -m hfinference" in said
    assert not {name.split(".")[0] for name in said.splitlines()[-1].split()} & HEAVY


def test_package_inits_re_export_nothing():
    for path in (ROOT / "hftraining").rglob("__init__.py"):
        assert imports(path) == set()


def test_hfinference_exports_everything_that_it_promises():
    """The one package that re-exports: `from hfinference import load_model` is promised."""
    import hfinference

    assert set(hfinference.__all__) == set(hfinference._PLACES)
    assert all(callable(getattr(hfinference, name)) for name in hfinference.__all__)


def test_no_module_of_the_package_hides_a_standard_one():
    names = {path.stem for path in (ROOT / "hftraining").glob("*.py")} - {"__init__", "__main__"}
    assert not names & set(sys.stdlib_module_names)
