"""A profile's summary, and the page that links every notebook, table and figure."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Template

from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.runs.profiles import Layout

Row = dict[str, Any]  # title, state, made, reused, failed, minutes, error, fingerprint


def read_summary(layout: Layout) -> dict[str, Row]:
    """Return one row a notebook, by stem."""
    if not layout.summary.is_file():
        return {}
    try:
        return json.loads(layout.summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IpslibError(
            f"{layout.summary} is not readable as JSON: delete it and run the study again"
        ) from error


def write_summary(layout: Layout, rows: dict[str, Row]) -> None:
    write_atomically(layout.summary, json.dumps(rows, indent=1, sort_keys=True) + "\n")


def build_index(layout: Layout) -> Path:
    """Write index.html from the summary and from the files that lie beside it."""
    rows = sorted(read_summary(layout).items())
    files = sorted([*layout.tables.glob("*.csv"), *layout.figures.glob("*.png")])
    parts = []
    for stem, row in rows:
        own = [path for path in files if _number(path.name) == _number(stem)]
        links = {"where it failed": ".failed.ipynb"} if row["state"] == "failed" else {}
        links |= {"page": ".html", "notebook": ".ipynb"}
        paths = {text: layout.notebooks / f"{stem}{end}" for text, end in links.items()}
        there = [(text, _link(layout, path)) for text, path in paths.items() if path.is_file()]
        pages = [link for link in there if link[0] == "page"]
        parts.append(row | _results(layout, own) | {"stem": stem, "links": there, "pages": pages})
    known = {_number(stem) for stem, _ in rows}
    if others := [path for path in files if _number(path.name) not in known]:
        parts.append(_results(layout, others))
    title = f"Iterative Patch Selection: the {layout.folder.name} study"
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    page = Template(text, autoescape=True, trim_blocks=True).render(title=title, parts=parts)
    return write_atomically(layout.index, page + "\n")


def _results(layout: Layout, files: list[Path]) -> dict[str, list[tuple[str, str]]]:
    """Tables and figures, each a name and a link."""
    tables = [(path.name, _link(layout, path)) for path in files if path.suffix == ".csv"]
    figures = [(path.stem, _link(layout, path)) for path in files if path.suffix == ".png"]
    return {"tables": tables, "figures": figures}


def _number(name: str) -> str:
    return name.split("_")[0]


def _link(layout: Layout, path: Path) -> str:
    return quote(path.relative_to(layout.folder).as_posix())
