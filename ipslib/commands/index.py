"""A profile's summary, and the page that links every notebook, table and figure."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ipslib.errors import IpslibError
from ipslib.runs.files import Layout, write_atomically

Row = dict[str, Any]  # title, state, made, reused, failed, minutes, error, fingerprint

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; --bad: #c0392b; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.15rem; margin: 0; }
section { border-top: 1px solid var(--line); padding: 1.2rem 0; }
p { margin: .3rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.failed { color: var(--bad); }
pre { overflow-x: auto; font-size: .85rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .8rem; }
figure { margin: 0; width: min(18rem, 100%); }
figure img { width: 100%; background: #fff; border: 1px solid var(--line); }
figcaption { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #aaa; --bad: #ff8a7a; }
  a { color: #8ab4f8; }
}
"""


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
    rows = read_summary(layout)
    files = _by_number([*layout.tables.glob("*.csv"), *layout.figures.glob("*.png")])
    sections = [
        _section(layout, _heading(layout, stem, row), files.pop(_number(stem), []))
        for stem, row in sorted(rows.items())
    ]
    if others := [path for group in files.values() for path in group]:
        sections.append(_section(layout, "<h2>Other results</h2>\n", others))
    return write_atomically(layout.index, _page(layout.folder.name, sections))


def _number(name: str) -> str:
    return name.split("_")[0]


def _by_number(paths: Iterable[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in sorted(paths):
        groups.setdefault(_number(path.name), []).append(path)
    return groups


def _page(profile: str, sections: list[str]) -> str:
    title = f"Iterative Patch Selection: the {escape(profile)} study"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{''.join(sections)}</body>\n</html>\n"
    )


def _heading(layout: Layout, stem: str, row: Row) -> str:
    title, failed = escape(row["title"]), row["state"] == "failed"
    page, source = (layout.notebooks / f"{stem}{end}" for end in (".html", ".ipynb"))
    links = [_link(layout, path, text) for path, text in ((page, "page"), (source, "notebook"))]
    if failed:
        links.insert(0, _link(layout, layout.notebooks / f"{stem}.failed.ipynb", "where it failed"))
    runs = f"{row['made']} runs made, {row['reused']} reused"
    runs += f", {row['failed']} failed" if row["failed"] else ""
    state = f'<span class="{"failed" if failed else "done"}">{row["state"]}</span>'
    parts = [escape(stem), state, runs, f"{row['minutes']:.1f} min", *filter(None, links)]
    error = f'<pre class="failed">{escape(row["error"])}</pre>\n' if row["error"] else ""
    name = _link(layout, page, title) or title
    return f'<h2>{name}</h2>\n<p class="soft">{" · ".join(parts)}</p>\n{error}'


def _section(layout: Layout, heading: str, files: list[Path]) -> str:
    tables = [path for path in files if path.suffix == ".csv"]
    links = " · ".join(_link(layout, path, escape(path.name)) for path in tables)
    thumbnails = "".join(_thumbnail(layout, path) for path in files if path not in tables)
    return (
        f"<section>\n{heading}"
        + (f"<p>Tables: {links}</p>\n" if links else "")
        + (f'<div class="figures">\n{thumbnails}</div>\n' if thumbnails else "")
        + "</section>\n"
    )


def _thumbnail(layout: Layout, path: Path) -> str:
    href, name = _relative(layout, path), escape(path.stem)
    image = f'<img src="{href}" alt="{name}" loading="lazy">'
    return f'<figure><a href="{href}">{image}</a><figcaption>{name}</figcaption></figure>\n'


def _link(layout: Layout, path: Path, text: str) -> str:
    return f'<a href="{_relative(layout, path)}">{text}</a>' if path.is_file() else ""


def _relative(layout: Layout, path: Path) -> str:
    return quote(path.relative_to(layout.folder).as_posix())
