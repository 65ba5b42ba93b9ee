"""The frame of every page that we write: one style, its charts embedded, Plotly's script beside it."""

import json
import shutil
from html import escape
from importlib import resources
from pathlib import Path

from hftraining.core.files import linked, replacing
from hftraining.reports.charts import Figure


def page(title: str, body: str, figures: dict[str, Figure]) -> str:
    """A whole HTML document; figures go into the elements of their names."""
    # In a script element only "<" could end it or open a comment.
    embedded = json.dumps(figures, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>\n{_asset("report.css")}</style>\n'
        '<script src="plotly.min.js" defer></script>\n'
        f'<script type="application/json" id="figures">{embedded}</script>\n'
        f"<script>\n{_asset('report.js')}</script>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def place_plotly(folder: Path, outputs: Path | None) -> None:
    """Put Plotly's script beside a page: a hard link to one copy in the outputs folder, not 5 MB a page.

    outputs: the folder that the page lies below; without one the page gets a copy of its own.
    """
    with resources.as_file(resources.files("plotly") / "package_data" / "plotly.min.js") as script:
        if outputs is None:
            with replacing(folder / "plotly.min.js") as temporary:
                shutil.copyfile(script, temporary)
            return
        shared = outputs / ".plotly.min.js"
        if not (shared.exists() and shared.stat().st_size == script.stat().st_size):
            with replacing(shared) as temporary:
                shutil.copyfile(script, temporary)
        linked(shared, folder / "plotly.min.js")


def _asset(name: str) -> str:
    return (resources.files("hftraining.reports") / name).read_text(encoding="utf-8")
