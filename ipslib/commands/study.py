"""What `ipslib study` does: execute what is not up to date, and link all of it from one page."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from jinja2 import Template
from tabulate import tabulate

from ipslib.commands.notebooks import (
    check_parameters,
    execute_all,
    pair_notebooks,
    read_source,
    say,
    title_of,
)
from ipslib.datasets.images.labels import read_table
from ipslib.datasets.images.own_images import files_of
from ipslib.errors import IpslibError
from ipslib.paths import data_root, digest_of, project_root, stamp, write_atomically
from ipslib.runs.profiles import (
    Layout,
    check_profile,
    committed_overnight,
    list_notebooks,
    load_parameters,
    resolve_notebook,
)

Row = dict[str, Any]  # title, state, made, reused, failed, minutes, error, fingerprint
Files = dict[str, Path]  # by name
Digest = Callable[[Files], str]

SUMMARY = "99_summary"


def run_study(
    profile: str,
    names: Iterable[str] = (),
    *,
    parameters: dict[str, Any] | None = None,
    force: bool = False,
) -> int:
    """Execute notebooks, print a summary in their order, and return the exit status.

    `parameters` override the profile's file for every notebook named. A notebook is not run again,
    unless `force` says so, where its last execution succeeded and was made of the same: text,
    parameters and the files that they name, code, records, data and results, each by its content.
    What is another is said. A failed one does not stop the others; the status is then 1.
    """
    layout = Layout.of(check_profile(profile))
    plan = {}
    for path in sorted(map(resolve_notebook, names)) or list_notebooks(profile):
        plan[path] = load_parameters(profile, path) | (parameters or {})
        check_parameters(path, plan[path])
    pair_notebooks()
    memory = layout.home.parent / ".contents.json"  # so that only what was written is read again
    stamps = json.loads(memory.read_text()) if memory.is_file() else {}

    def digest(files: Files) -> str:
        found = {}
        for name, file in files.items():
            with suppress(FileNotFoundError):  # another process has just removed it
                found[name] = stamps[str(file)] = stamp(file, stamps.get(str(file)))
        return digest_of(found)

    sources = {path: _sources(path, profile, plan[path], digest) for path in plan}
    rows, shown = read_summary(layout), {}
    # The summary is made of the others, which may be executed side by side.
    for part in ([p for p in plan if p.stem != SUMMARY], [p for p in plan if p.stem == SUMMARY]):
        tasks = []
        for path in part:
            row = rows.get(path.stem, {})
            before, now = row.get("fingerprint", {}), sources[path] | _results(path, layout, digest)
            changed = [name for name in before | now if before.get(name) != now.get(name)]
            if row.get("state") == "done" and not changed and not force:
                say(f"{path.stem}: up to date (--force runs it again)")
                reused = row["made"] + row["reused"]
                counts = {"made": 0, "reused": reused, "minutes": 0.0}
                shown[path.stem] = row | {"state": "up to date"} | counts
                continue
            if row.get("state") == "done" and changed:
                say(f"{path.stem}: runs again, for other {', '.join(changed)}")
            tasks.append((path, plan[path]))
        # Most seeds first: a long one that starts last would leave the other lanes idle.
        tasks.sort(key=lambda task: len(task[1].get("seeds", ())), reverse=True)
        for path, done in execute_all(tasks, layout, lanes=_lanes(profile)):
            if done.error:
                say(f"{path.stem} failed: {done.error}")
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            row = done._asdict() | {"state": done.state, "finished": finished}
            row["fingerprint"] = sources[path] | _results(path, layout, digest)
            shown[path.stem] = rows[path.stem] = row
            _save(layout, rows)
    # Records that other notebooks added are no reason to run these again.
    for path in plan:
        rows[path.stem]["fingerprint"] |= _results(path, layout, digest)
    write_atomically(memory, json.dumps(stamps))
    index = _save(layout, rows)
    print(_table({path.stem: shown[path.stem] for path in plan}, layout))
    print(f"\nEverything is linked from {index}")
    return int(any(row["state"] == "failed" for row in shown.values()))


def _lanes(profile: str) -> int:
    """Notebooks at a time: two keep the cores of a computer busy; a GPU, and runs of the
    published size, are for one."""
    alone = profile == "paper" or torch.cuda.is_available() or os.cpu_count() == 1
    return 1 if alone else 2


def _table(shown: dict[str, Row], layout: Layout) -> str:
    here, lines = Path.cwd(), []
    for stem, row in shown.items():
        end = ".failed.ipynb" if row["state"] == "failed" else ".html"
        place = layout.notebooks / f"{stem}{end}"
        place = place.relative_to(here) if place.is_relative_to(here) else place
        lines.append((stem, row["state"], row["made"], row["reused"], row["minutes"], place))
    names = ("notebook", "state", "runs made", "runs reused", "minutes", "where to look")
    return "\n" + tabulate(lines, names, floatfmt=".1f", disable_numparse=[0])


# --- what a notebook is made of, and has made -------------------------------------------------


def _sources(
    path: Path, profile: str, parameters: Mapping[str, Any], digest: Digest
) -> dict[str, str]:
    """What an execution is made of: text, base settings, code, parameters, and the files that
    these name."""
    package, base = Path(__file__).resolve().parents[1], project_root() / "params" / profile
    parts = {
        "text": digest({path.name: path}),
        "base settings": digest(_files(base, "base.yaml")),
        "code": digest(_files(package, "**/*.py", "**/*.csv", "**/*.html")),
    }
    for name, value in parameters.items():
        parts[name] = json.dumps(value, sort_keys=True, default=str)
        if files := _named_files(value):
            parts[f"files of {name}"] = digest(files)
    return parts


def _named_files(value: Any) -> Files:
    """The files that a parameter names: one, those of a folder, and the images of a table."""
    if isinstance(value, Mapping | list):
        values = value.values() if isinstance(value, Mapping) else value
        return {n: f for each in values for n, f in _named_files(each).items()}
    root = project_root()
    place = root / Path(value).expanduser() if isinstance(value, str) and value else root
    if root.is_relative_to(place) or not os.path.exists(place):
        return {}
    if place.is_dir():
        return _files(place, "**/*")
    files = {place.name: place}
    if place.suffix in (".csv", ".tsv", ".txt"):
        with suppress(IpslibError):  # the notebook itself tells
            for cells in read_table(place).columns.values():
                files |= dict(zip(cells, files_of(place.parent, cells), strict=True))
    return {name: file for name, file in files.items() if file.is_file()}


def _results(path: Path, layout: Layout, digest: Digest) -> dict[str, str]:
    """The records and data that there are, and what the notebook has made; the summary's results
    are made of those of all."""
    number = _number(path.stem)
    of = "*" if path.stem == SUMMARY else f"{number}_*"
    own = (f"tables/{of}", f"figures/{of}", f"notebooks/{number}_*")
    return {
        "records": digest(_files(layout.records, "**/*.json")),
        "results": digest(_files(layout.folder, *own)),
        "data": digest(_files(data_root(), "*", "*/*", "*/*/*")),
    }


def _files(folder: Path, *patterns: str) -> Files:
    """Files in a folder by their name in it."""
    found = (file for pattern in patterns for file in folder.glob(pattern) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in found}


# --- the page ---------------------------------------------------------------------------------


def read_summary(layout: Layout) -> dict[str, Row]:
    """One row a notebook, by stem."""
    try:
        return json.loads(layout.summary.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise IpslibError(
            f"{layout.summary} is not readable as JSON: delete it and run the study again"
        ) from error


def _save(layout: Layout, rows: dict[str, Row]) -> Path:
    """Write the summary and the page of the notebooks that the profile still has."""
    here = list_notebooks(layout.home.name)
    rows = {path.stem: rows[path.stem] for path in here if path.stem in rows}
    write_atomically(layout.summary, json.dumps(rows, indent=1, sort_keys=True) + "\n")
    night = {}
    for path in sorted(set(list_notebooks()) - set(here)):
        executed = committed_overnight().notebooks / f"{path.stem}.ipynb"
        if executed.is_file():
            night[f"{title_of(read_source(path))} (overnight)"] = executed
    return build_index(layout, rows, night)


def build_index(
    layout: Layout, rows: Mapping[str, Row], night: Mapping[str, Path] | None = None
) -> Path:
    """Write index.html from the summary's rows and from the files that lie beside it; `night` holds
    by title the executed notebooks of `overnight` that stand in for those left to it."""

    def links(paths: Mapping[str, Path]) -> list[tuple[str, str]]:
        relative = {text: os.path.relpath(path, layout.folder) for text, path in paths.items()}
        return [(text, quote(Path(path).as_posix())) for text, path in relative.items()]

    def results(is_of: Callable[[Path], bool]) -> dict[str, list[tuple[str, str]]]:
        tables = [path for path in sorted(layout.tables.glob("*.csv")) if is_of(path)]
        figures = [path for path in sorted(layout.figures.glob("*.png")) if is_of(path)]
        return {
            "tables": links({path.name: path for path in tables}),
            "figures": links({path.stem: path for path in figures}),
        }

    parts = []
    for stem, row in sorted(rows.items()):
        ends = {"where it failed": ".failed.ipynb"} if row["state"] == "failed" else {}
        ends |= {"page": ".html", "notebook": ".ipynb"}
        copies = {text: layout.notebooks / f"{stem}{end}" for text, end in ends.items()}
        copies = links({text: path for text, path in copies.items() if path.is_file()})
        own = results(lambda path, stem=stem: _number(path.name) == _number(stem))
        parts.append(row | own | {"stem": stem, "links": copies, "page": dict(copies).get("page")})
    for title, notebook in (night or {}).items():
        parts.append({"title": title, "page": links({"": notebook})[0][1], "night": True})
    parts.sort(key=lambda part: part["title"])
    known = {_number(stem) for stem in rows}
    others = results(lambda path: _number(path.name) not in known)
    parts += [others] if any(others.values()) else []
    title = f"Iterative Patch Selection: the {layout.folder.name} study"
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    page = Template(text, autoescape=True, trim_blocks=True).render(title=title, parts=parts)
    return write_atomically(layout.index, page + "\n")


def _number(name: str) -> str:
    return name.split("_")[0]
