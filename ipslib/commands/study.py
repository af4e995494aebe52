"""What `ipslib study` and `ipslib notebooks` do."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import torch
from jupytext.combine import combine_inputs_with_outputs
from tabulate import tabulate

from ipslib.commands.index import Row, build_index, read_summary, write_summary
from ipslib.commands.notebooks import Execution, check_parameters, execute_all, read_source
from ipslib.datasets.images.labels import read_table
from ipslib.datasets.images.own_images import files_of
from ipslib.errors import IpslibError
from ipslib.paths import Stamp, data_root, digest_of, project_root, stamp, write_atomically
from ipslib.runs.profiles import (
    Layout,
    check_profile,
    list_notebooks,
    load_parameters,
    resolve_notebooks,
)

Part = str | Mapping[str, Path]  # a value, or files by name

SUMMARY = "99_summary"
_NAMED_FILES = 3  # of a part that has changed


def run_study(
    profile: str,
    names: Iterable[str] = (),
    *,
    parameters: dict[str, Any] | None = None,
    force: bool = False,
) -> int:
    """Execute notebooks in order, print a summary, and return the exit status.

    `parameters` override the profile's file for every notebook named. A notebook is not run again,
    unless `force` says so, where its last execution succeeded and was made of the same: text,
    parameters and the files that they name, code, records, data and results, each by its content.
    What is another is said. A failed one does not stop the others; the status is then 1.
    """
    layout = Layout.of(check_profile(profile))
    plan = {}
    for path in resolve_notebooks(names):
        plan[path] = load_parameters(profile, path) | (parameters or {})
        check_parameters(path, plan[path])
    pair_notebooks()
    contents = _Contents(layout.home.parent / ".contents.json")
    made_of = {path: _sources(path, profile, plan[path]) for path in plan}
    sources = {path: contents.digests(parts) for path, parts in made_of.items()}
    rows, shown = read_summary(layout), {}
    for part in _parts(plan):
        tasks = []
        for path in part:
            row = rows.get(path.stem, {})
            changed = contents.changed(
                row.get("fingerprint", {}), made_of[path] | _results(path, layout)
            )
            if not force and row.get("state") == "done" and not changed:
                _say(f"{path.stem}: up to date (--force runs it again)")
                shown[path.stem] = _not_run(row)
                continue
            if row.get("state") == "done" and changed:
                _say(f"{path.stem}: runs again, for other {', '.join(changed)}")
            tasks.append((path, plan[path]))
        for path, done in execute_all(tasks, layout, lanes=_lanes(profile)):
            if done.error:
                _say(f"{path.stem} failed: {done.error}")
            fingerprint = sources[path] | contents.digests(_results(path, layout))
            shown[path.stem] = rows[path.stem] = _row(done) | {"fingerprint": fingerprint}
            _save(layout, rows)
    # Records that other notebooks added are no reason to run these again.
    for path in plan:
        rows[path.stem]["fingerprint"] |= contents.digests(_results(path, layout))
    contents.save()
    index = _save(layout, rows)
    print(_table({path.stem: shown[path.stem] for path in plan}, layout))
    print(f"\nEverything is linked from {index}")
    return int(any(row["state"] == "failed" for row in shown.values()))


def _not_run(row: Row) -> Row:
    reused = row["made"] + row["reused"]
    return row | {"state": "up to date", "made": 0, "reused": reused, "minutes": 0.0}


def _save(layout: Layout, rows: dict[str, Row]) -> Path:
    stems = {path.stem for path in list_notebooks()}
    write_summary(layout, {stem: row for stem, row in rows.items() if stem in stems})
    return build_index(layout)


def pair_notebooks() -> list[Path]:
    """Write notebooks/*.ipynb from their .py, for JupyterLab and plain papermill.

    Outputs of unchanged cells are kept. JupyterLab writes changes to both; an .ipynb that was
    changed since by something else is left alone, and named: it is the .py that is executed.
    """
    written = []
    for source in list_notebooks():
        paired, modified = source.with_suffix(".ipynb"), source.stat().st_mtime
        notebook = read_source(source)
        if paired.exists():
            other = jupytext.read(paired)
            if _cells(other) == _cells(notebook):
                continue
            if paired.stat().st_mtime > modified + 1:
                _say(
                    f"{paired.name} was changed, but not {source.name}, which is executed: save it "
                    "in JupyterLab, or delete it"
                )
                continue
            notebook = combine_inputs_with_outputs(notebook, other)
        write_atomically(paired, nbformat.writes(notebook) + "\n")
        os.utime(paired, (modified, modified))  # jupytext refuses an .ipynb newer than its .py
        written.append(paired)
    return written


def _cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


class _Contents:
    """What files hold. It is remembered from one study to the next, so that only those that were
    written since are read again.

    Args:
        memory: where it is remembered.
    """

    def __init__(self, memory: Path):
        self._memory = memory
        self._known = json.loads(memory.read_text()) if memory.is_file() else {}
        self._written: set[str] = set()  # files that are others now

    def digests(self, parts: Mapping[str, Part]) -> dict[str, str]:
        """One digest for each part that consists of files."""
        return {
            name: part if isinstance(part, str) else digest_of(self._stamps(part))
            for name, part in parts.items()
        }

    def changed(self, before: Mapping[str, str], parts: Mapping[str, Part]) -> list[str]:
        """The parts that are others than their digests before, and which of their files, where
        that is known."""
        now, changed = self.digests(parts), []
        for name in {**now, **before}:
            if before.get(name) != now.get(name):
                part = parts.get(name, "")
                files = {} if isinstance(part, str) else part
                others = [each for each, file in files.items() if str(file) in self._written]
                changed.append(f"{name} ({', '.join(others[:_NAMED_FILES])})" if others else name)
        return changed

    def save(self) -> None:
        write_atomically(self._memory, json.dumps(self._known))

    def _stamps(self, files: Mapping[str, Path]) -> dict[str, Stamp]:
        stamps = {}
        for name, file in files.items():
            before = self._known.get(str(file))
            with suppress(FileNotFoundError):  # another process has just removed it
                stamps[name] = self._known[str(file)] = stamp(file, before)
                if before and before[-1] != stamps[name].sha256:
                    self._written.add(str(file))
        return stamps


def _sources(path: Path, profile: str, parameters: Mapping[str, Any]) -> dict[str, Part]:
    """What an execution is made of: text, base settings, code, parameters, and the files that
    these name."""
    package, base = Path(__file__).resolve().parents[1], project_root() / "params" / profile
    parts = {
        "text": {path.name: path},
        "base settings": _files(base, "base.yaml"),
        "code": _files(package, "**/*.py", "**/*.csv", "**/*.html"),
    }
    for name, value in parameters.items():
        parts[name] = json.dumps(value, sort_keys=True, default=str)
        if files := _named_files(value):
            parts[f"files of {name}"] = files
    return parts


def _named_files(value: Any) -> dict[str, Path]:
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


def _results(path: Path, layout: Layout) -> dict[str, Part]:
    """The records and data that there are, and what the notebook has made; the summary's results
    are made of those of all."""
    number = path.stem.split("_")[0]
    of = "*" if path.stem == SUMMARY else f"{number}_*"
    own = (f"tables/{of}", f"figures/{of}", f"notebooks/{number}_*")
    return {
        "records": _files(layout.records, "**/*.json"),
        "results": _files(layout.folder, *own),
        "data": _files(data_root(), "*", "*/*", "*/*/*"),
    }


def _files(folder: Path, *patterns: str) -> dict[str, Path]:
    """Files in a folder by their name in it."""
    found = (file for pattern in patterns for file in folder.glob(pattern) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in found}


def _row(done: Execution) -> Row:
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    minutes = round(done.minutes, 2)
    return asdict(done) | {"state": done.state, "minutes": minutes, "finished": finished}


def _parts(plan: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """What may be executed side by side, and then what is made of the others."""
    together = [path for path in plan if path.stem != SUMMARY]
    return together, [path for path in plan if path.stem == SUMMARY]


def _lanes(profile: str) -> int:
    """Notebooks at a time: two keep the cores of a computer busy; a GPU, and runs of the
    published size, are for one."""
    alone = profile == "paper" or torch.cuda.is_available() or os.cpu_count() == 1
    return 1 if alone else 2


def _table(shown: dict[str, Row], layout: Layout) -> str:
    lines = []
    for stem, row in shown.items():
        end = ".failed.ipynb" if row["state"] == "failed" else ".html"
        place = _short(layout.notebooks / f"{stem}{end}")
        lines.append((stem, row["state"], row["made"], row["reused"], row["minutes"], place))
    names = ("notebook", "state", "runs made", "runs reused", "minutes", "where to look")
    return "\n" + tabulate(lines, names, floatfmt=".1f", disable_numparse=[0])


def _short(path: Path) -> str:
    """Return the path as seen from the current directory, where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
