"""What `ipslib study` and `ipslib notebooks` do."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
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
from ipslib.paths import project_root, write_atomically
from ipslib.runs.profiles import (
    Layout,
    check_profile,
    list_notebooks,
    load_parameters,
    resolve_notebooks,
)

SUMMARY = "99_summary"


def run_study(
    profile: str,
    names: Iterable[str] = (),
    *,
    parameters: dict[str, Any] | None = None,
    force: bool = False,
    root: Path | None = None,
    lanes: int | None = None,
) -> int:
    """Execute notebooks in order, print a summary, and return the exit status.

    `parameters` override the profile's file for every notebook named. A notebook whose text,
    parameters, code and results are those of its last successful execution is not run again
    unless `force` says so. A failed one does not stop the others; the status is then 1. `lanes`
    notebooks are executed at a time, as many as suit the machine if None.
    """
    root = root or project_root()
    layout = Layout.of(check_profile(profile), root=root)
    plan = {}
    for path in resolve_notebooks(names, root):
        plan[path] = load_parameters(profile, path, root=root) | (parameters or {})
        check_parameters(path, plan[path])
    pair_notebooks(root)
    sources = {path: source_fingerprint(path, profile, plan[path], root) for path in plan}
    rows, shown = read_summary(layout), {}
    for part in _parts(plan):
        tasks = []
        for path in part:
            row, results = rows.get(path.stem), results_fingerprint(path, layout, root)
            if not force and row and _is_current(row, sources[path], results):
                _say(f"{path.stem}: up to date (--force runs it again)")
                shown[path.stem] = _not_run(row)
            else:
                tasks.append((path, plan[path]))
        n_lanes = lanes or _lanes(profile)
        for path, done in execute_all(tasks, layout, lanes=n_lanes, begun=_tell_begun):
            if done.error:
                _say(f"{path.stem} failed: {done.error}")
            shown[path.stem] = rows[path.stem] = _row(done) | {
                "fingerprint": {
                    "source": sources[path],
                    "results": results_fingerprint(path, layout, root),
                }
            }
            _save(layout, rows, root)
    # Records that other notebooks added are no reason to run these again.
    for path in plan:
        rows[path.stem]["fingerprint"]["results"] = results_fingerprint(path, layout, root)
    index = _save(layout, rows, root)
    print(_table({path.stem: shown[path.stem] for path in plan}, layout))
    print(f"\nEverything is linked from {index}")
    return int(any(row["state"] == "failed" for row in shown.values()))


def _is_current(row: Row, source: str, results: str) -> bool:
    return row["state"] == "done" and row["fingerprint"] == {"source": source, "results": results}


def _not_run(row: Row) -> Row:
    reused = row["made"] + row["reused"]
    return row | {"state": "up to date", "made": 0, "reused": reused, "minutes": 0.0}


def _save(layout: Layout, rows: dict[str, Row], root: Path) -> Path:
    stems = {path.stem for path in list_notebooks(root)}
    write_summary(layout, {stem: row for stem, row in rows.items() if stem in stems})
    return build_index(layout)


def pair_notebooks(root: Path | None = None) -> list[Path]:
    """Write notebooks/*.ipynb from their .py, for JupyterLab and plain papermill.

    Outputs of unchanged cells are kept. An .ipynb as new as its .py is left alone; JupyterLab
    writes the .py last, a moment after the .ipynb.
    """
    written = []
    for source in list_notebooks(root):
        paired, modified = source.with_suffix(".ipynb"), source.stat().st_mtime
        if paired.exists() and paired.stat().st_mtime > modified - 1:
            continue
        notebook = read_source(source)
        if paired.exists():
            notebook = combine_inputs_with_outputs(notebook, jupytext.read(paired))
        write_atomically(paired, nbformat.writes(notebook) + "\n")
        os.utime(paired, (modified, modified))  # jupytext refuses an .ipynb newer than its .py
        written.append(paired)
    return written


def source_fingerprint(path: Path, profile: str, parameters: dict[str, Any], root: Path) -> str:
    """Hash what an execution depends on: text, parameters, the profile's base, ipslib's code."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    package = Path(__file__).resolve().parents[1]
    base = root / "params" / profile / "base.yaml"
    code = (file for file in package.rglob("*") if file.suffix in (".py", ".csv"))
    for file in [path, base, *sorted(code)]:
        if file.is_file():
            digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def results_fingerprint(path: Path, layout: Layout, root: Path) -> str:
    """Hash the listing of the run records, of the notebook's own results and of the data found.

    The summary's results are made of those of all notebooks.
    """
    number = path.stem.split("_")[0]
    of = "*" if path.stem == SUMMARY else f"{number}_*"
    own = (f"tables/{of}", f"figures/{of}", f"notebooks/{number}_*")
    patterns = {
        layout.folder: ["records/**/*.json", *own],
        Path(os.environ.get("IPSLIB_DATA") or root / "data"): ["*", "*/*", "*/*/*"],
    }
    listing = sorted(
        f"{file.relative_to(folder)} {file.stat().st_size}"
        for folder, wanted in patterns.items()
        for pattern in wanted
        for file in folder.glob(pattern)
        if file.is_file()
    )
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


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


def _tell_begun(path: Path) -> None:
    _say(f"{path.stem}: running")


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
