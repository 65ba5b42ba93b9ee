"""Writes the pages: a filled template with its charts in it, and Plotly's script beside it or within."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hftraining.core.files import linked, replacing, sha256, write_text_atomically
from hftraining.core.values import plain, without_nan
from hftraining.reports import format
from hftraining.reports.breakdown import percent
from hftraining.reports.charts import Figure
from hftraining.reports.words import TONED


def write_page(path: Path, outputs: Path | None, figures: Mapping[str, Figure | None], **context: Any) -> Path:
    """Fill the template of reports/templates that is named like the file; returns the path.

    The folder must exist. outputs: see _place_plotly. figures: by the id of their element; None is left out, NaN
    becomes a gap. All text in the context is escaped. Raises jinja2.UndefinedError for a value that the template reads
    and the context lacks.
    """
    _place_plotly(path.parent, outputs)
    write_text_atomically(path, _filled(path.name, figures, context | {"plotly": None}))
    return path


def write_whole_page(path: Path, template: str, figures: Mapping[str, Figure | None], **context: Any) -> Path:
    """As write_page, of a template by its name, into one file that needs no other: Plotly's 5 MB are in it."""
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    write_text_atomically(
        path, _filled(template, figures, context | {"plotly": script if any(figures.values()) else ""})
    )
    return path


def _filled(template: str, figures: Mapping[str, Figure | None], context: Mapping[str, Any]) -> str:
    drawn = {name: without_nan(plain(figure)) for name, figure in figures.items() if figure}
    return _environment().get_template(template).render(context, figures=drawn)


def _place_plotly(folder: Path, outputs: Path | None) -> None:
    """Put Plotly's script beside a page: a hard link to one copy in the outputs folder, to spare 5 MB a page.

    outputs: the folder that the page lies below; without one the page gets a copy of its own.
    """
    with resources.as_file(resources.files("plotly") / "package_data" / "plotly.min.js") as script:
        own = folder / "plotly.min.js"
        copy = outputs / ".plotly.min.js" if outputs else own
        # Whoever could write into the outputs folder would otherwise run a script in each new report.
        if copy.is_symlink() or not copy.is_file() or sha256(copy) != sha256(script):
            with replacing(copy) as temporary:
                shutil.copyfile(script, temporary)
        if copy != own:
            linked(copy, own)


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
    pages.globals |= {"with_a_sign": TONED}
    pages.filters |= {
        "typeset": format.typeset,
        "prose": format.prose,
        "cell": format.cell,
        "number": lambda value, unit, signed=False: format.cell(format.number(value, unit, signed)),
        "interval": lambda found, unit: format.cell(format.interval(found.low, found.high, unit)),
        "estimate": lambda found, unit: format.cell(format.estimate(found, unit)),
        "filled": lambda value, pattern: format.typeset(format.filled(pattern, value)),
        "plural": format.plural,
        "duration": format.duration,
        "day": lambda date: format.typeset(format.day(date)),
        "json": lambda value: json.dumps(plain(value), ensure_ascii=False),
        "capitalised": format.capitalised,
        "split_brackets": format.split_brackets,
        "tone": format.tone,
        "percent": percent,
        "of": lambda key, words: words[key],
    }
    return pages
