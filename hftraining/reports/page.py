"""The pages that we write: a template filled in, its charts embedded, Plotly's script beside it."""

import json
import shutil
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hftraining.core.files import linked, replacing, write_text_atomically
from hftraining.core.values import plain
from hftraining.reports import format


def write_page(path: Path, outputs: Path | None, template: str, **context: Any) -> None:
    """Render a template into a file of a folder that exists, and place Plotly's script beside it: see place_plotly."""
    place_plotly(path.parent, outputs)
    write_text_atomically(path, render(template, **context))


def render(template: str, **context: Any) -> str:
    """A whole HTML document from a template of reports/templates; all text in it is escaped.

    A template that extends base.html needs title and figures: Plotly figures by the id of their element.
    Raises jinja2.UndefinedError for what a template reads and the context does not have.
    """
    return _environment().get_template(template).render(context)


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


@cache
def _environment() -> Environment:
    pages = Environment(
        loader=PackageLoader("hftraining.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    files = resources.files("hftraining.reports")
    pages.globals |= {name: (files / f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    pages.filters |= {
        "typeset": format.typeset,
        "cell": format.cell,
        "number": lambda value, unit, signed=False: format.cell(format.number(value, unit, signed)),
        "estimate": lambda found, unit: format.cell(format.estimate(found, unit)),
        "filled": lambda value, pattern: format.typeset(format.filled(pattern, value)),
        "plural": format.plural,
        "duration": format.duration,
        "day": lambda date: format.typeset(format.day(date)),
        "json": lambda value: json.dumps(plain(value), ensure_ascii=False),
        "capitalised": format.capitalised,
        "of": lambda key, words: words[key],
    }
    pages.tests |= {"known": format.is_known}
    return pages
