"""docs/security.md: every test that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_sentence_about_security_names_tests_that_exist():
    named = set(re.findall(r"\b(test_\w+)(\.\.\.|\.py)?", (ROOT / "docs" / "security.md").read_text()))
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    known = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    known_files = {path.stem for path in files}
    assert len(named) > 40
    for name, ending in named:
        found = {".py": name in known_files, "": name in known}.get(ending, any(one.startswith(name) for one in known))
        assert found, f"{name}{ending}"
