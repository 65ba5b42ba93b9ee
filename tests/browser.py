"""A headless browser that opens a page and checks that it logs no error."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


def drawn(page, home, width=1280, scheme=1):
    """The document after its scripts have run. scheme: 0 dark, 1 light. home: the folder for the browser's files."""
    answer = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--allow-file-access-from-files", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=8000"),
            *(f"--user-data-dir={home / 'browser'}", f"--window-size={width},900"),
            f"--blink-settings=preferredColorScheme={scheme}",
            *("--dump-dom", f"file://{page}"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"HOME": str(home)},
    )
    # WebGL draws parallel coordinates, and the browser warns where the machine has no graphics card.
    said = [line for line in answer.stderr.splitlines() if "CONSOLE" in line and "WebGL" not in line]
    assert not said, said
    return answer.stdout


def found_in(document):
    """The JSON that the page's script put into data-found."""
    attribute = re.search(r'data-found="([^"]*)"', document).group(1)
    return json.loads(html.unescape(attribute))
