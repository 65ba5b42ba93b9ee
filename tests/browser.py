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


# A browser window is at least 500 pixels wide; a frame can be as narrow as a phone.
LAID_OUT = """<!doctype html><body style="margin:0"><iframe id="frame" src="{name}" width="{width}" height="4000"
style="border:0"></iframe><script>frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  for (const part of page.querySelectorAll("details")) part.open = true;
  setTimeout(() => {{
  const isOut = (table) => table.clientWidth && table.getBoundingClientRect().right > root.clientWidth + 1;
  const hintOf = (table) => table.parentElement.previousElementSibling;
  const isHinted = (table) => hintOf(table)?.className === "hint" && hintOf(table).clientHeight > 0;
  const tables = [...page.querySelectorAll("table")], out = tables.filter(isOut);
  document.body.dataset.found = JSON.stringify({{
    width: root.clientWidth, content: root.scrollWidth, tables: tables.length, out: out.length,
    cut: out.filter((table) => !isHinted(table)).map((table) => table.outerHTML.slice(0, 200)),
    hints: [...page.querySelectorAll(".hint")].filter((hint) => hint.clientHeight).length,
    charts: [...page.querySelectorAll(".chart")].map((chart) => [chart.id, chart.querySelectorAll("svg").length]),
  }});
  }}, 1000);
}}</script>"""


def laid_out(page, home, width):
    """How a page is laid out at a width: its tables, those that reach out of it, and those cut without a hint.

    Fails where the page logs an error, where the page itself scrolls sideways, or where a column is cut unhinted.
    """
    frame = page.with_name("laid_out.html")
    frame.write_text(LAID_OUT.format(name=page.name, width=width))
    found = found_in(drawn(frame, home, width))
    assert found["content"] <= found["width"] <= width, found
    assert not found["cut"], found["cut"]
    assert found["hints"] >= found["out"]  # within its box a table may be cut before the page is
    assert all(count for _, count in found["charts"]), found["charts"]
    return found
