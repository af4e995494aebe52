"""Execute notebooks without a browser, and keep what they made.

A notebook's source is percent-format text. It becomes an .ipynb in a temporary folder, papermill
runs it in a kernel process of its own, and the executed copy and its HTML go to the outputs.
"""

import ast
import base64
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import jupytext
import nbformat
import papermill
from jupyter_client.manager import KernelManager
from jupytext.combine import combine_inputs_with_outputs
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import write_atomically
from ipslib.runs import Kernel, Progress, Report, followed
from ipslib.runs.executors import WorkerDied, here, processes
from ipslib.runs.profiles import Layout, list_notebooks
from ipslib.study.figures import smaller_png

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
SECONDS_TO_START = 180
DEAD_KERNEL = (
    "the kernel died, most often for lack of memory: close other programs, "
    "or choose a smaller profile, batch or memory_size"
)

Task = tuple[Path, dict[str, Any]]  # a notebook and its parameters


class Execution(NamedTuple):
    """What came of one notebook: runs by how they ended, and what went wrong, if anything."""

    title: str
    made: int = 0
    reused: int = 0
    failed: int = 0
    minutes: float = 0.0
    error: str = ""

    @property
    def state(self) -> str:
        return "failed" if self.error else "done"


def read_source(path: Path) -> NotebookNode:
    """Read a percent-format notebook, with the kernel that papermill and JupyterLab ask for."""
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = dict(KERNEL)
    return notebook


def title_of(notebook: NotebookNode) -> str:
    """The first heading."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = (line for line in "\n".join(texts).splitlines() if line.startswith("# "))
    return next(headings, "# Untitled")[2:].strip()


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
                say(
                    f"{paired.name} was changed, but not {source.name}, which is executed: save it "
                    "in JupyterLab, or delete it"
                )
                continue
            notebook = combine_inputs_with_outputs(notebook, other)
        write_atomically(paired, nbformat.writes(notebook) + "\n")
        os.utime(paired, (modified, modified))  # jupytext refuses an .ipynb newer than its .py
        written.append(paired)
    return written


def _cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def check_parameters(path: Path, parameters: Iterable[str]) -> None:
    """Refuse names that the notebook's parameters cell lacks; papermill would only warn."""
    cells, parameters = read_source(path).cells, set(parameters)
    tagged = [each.source for each in cells if "parameters" in each.metadata.get("tags", ())]
    names = (node for node in ast.walk(ast.parse("\n".join(tagged))) if isinstance(node, ast.Name))
    known = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    for name in sorted(parameters - known):
        raise IpslibError(f"{path.stem} has no parameter {name!r}{did_you_mean(name, known)}")
    if missing := sorted(known - parameters):
        raise IpslibError(
            f"{path.stem}: the profile's file gives no value for {', '.join(missing)}; "
            "it must hold every name of the parameters cell"
        )


def execute_all(
    tasks: Sequence[Task], layout: Layout, *, lanes: int
) -> Iterator[tuple[Path, Execution]]:
    """Execute notebooks in their order, at most `lanes` at a time, and yield each as it ends.

    A single lane is this process. Each of several has a share of the cores: while one imports,
    draws figures or ends with a single run, the others go on. One whose process is killed has
    failed. However this ends, by Ctrl-C too, kernels end with it.
    """
    waiting, lanes = iter(tasks), min(lanes, len(tasks))

    def next_task() -> Task | None:
        if task := next(waiting, None):
            say(f"{task[0].stem}: running")
        return task

    share = max(1, (os.cpu_count() or 1) // lanes) if lanes > 1 else 0
    executor = processes(lanes) if lanes > 1 else here
    work = partial(_execute, layout=layout, share=share)
    with closing(executor(work, next_task, lambda event: None)) as results:
        for (path, _), done in results:
            if isinstance(done, WorkerDied):
                done = Execution(title_of(read_source(path)), error=str(done))
            yield path, done


def _execute(task: Task, _: Report, *, layout: Layout, share: int) -> Execution:
    if share:  # a process of its own, which is ended by a signal: its kernel ends, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return execute(*task, layout, share=share)


def execute(path: Path, parameters: dict[str, Any], layout: Layout, *, share: int = 0) -> Execution:
    """Run a notebook and keep it as NN_name.ipynb and .html, or as NN_name.failed.ipynb.

    `share` is the cores that it has to itself, where others are executed beside it; its progress
    is then shown in lines, since bars would write over each other.

    Raises:
        IpslibError: for parameters that are not those of its parameters cell.
    """
    check_parameters(path, parameters)
    layout.create()
    source, start = read_source(path), time.monotonic()
    progress = Progress(path.stem, bar=not share and sys.stderr.isatty())
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, f"{path.stem}.ipynb"), Path(folder, "executed.ipynb")
        nbformat.write(source, before)
        events = Path(folder, "events.jsonl")
        kernel = Kernel(events=str(events), apart=layout.apart, jobs=share)
        with followed(events, progress):
            error = _run(before, after, parameters, kernel)
        if after.is_file():
            _keep(after, path, title_of(source), layout, failed=bool(error))
    counts = {status: progress.count(status) for status in ("made", "reused", "failed")}
    minutes = round((time.monotonic() - start) / 60, 2)
    return Execution(title_of(source), **counts, minutes=minutes, error=error)


def _run(before: Path, after: Path, parameters: dict[str, Any], kernel: Kernel) -> str:
    """Let papermill execute; return what went wrong, or an empty text."""
    package = Path(__file__).resolve().parents[2]
    environment = {
        # The kernel imports the ipslib that runs it, whatever else is installed.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")])),
        "JUPYTER_PREFER_ENV_PATH": "1",  # not a python3 kernel of some other environment
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning at every kernel start
    }
    if kernel.jobs:
        environment["OMP_NUM_THREADS"] = str(kernel.jobs)
    # Encrypt the talk with the kernel where Jupyter can; newer kernels warn of plain text.
    encrypt = "transport_encryption" in KernelManager.class_trait_names()
    at_start = f"import ipslib.runs; ipslib.runs.KERNEL = ipslib.runs.{kernel}"
    try:
        with patch.dict(os.environ, environment):
            papermill.execute_notebook(
                str(before),
                str(after),
                parameters=parameters,
                progress_bar=False,
                start_timeout=SECONDS_TO_START,
                config=Config(KernelManager={"transport_encryption": "auto"} if encrypt else {}),
                extra_arguments=[f"--IPKernelApp.exec_lines={at_start}"],
            )
    except PapermillExecutionError as error:
        return describe(error)
    except DeadKernelError:
        return DEAD_KERNEL
    return ""


def describe(error: PapermillExecutionError) -> str:
    """Return the error's last line and the cell it came from; our own errors say it in one."""
    last = (error.evalue.strip().splitlines() or [""])[-1]
    if error.ename == IpslibError.__name__:
        return last
    cell = "\n".join(f"    {line}" for line in error.source.strip().splitlines())
    return f"{error.ename}: {last}\n  in cell [{error.exec_count}]:\n{cell}"


def _keep(executed: Path, path: Path, title: str, layout: Layout, *, failed: bool) -> None:
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("jupytext", None)
    notebook.metadata["papermill"].update(
        input_path=f"notebooks/{path.name}", output_path=f"{path.stem}.ipynb"
    )
    for output in (each for cell in notebook.cells for each in cell.get("outputs", ())):
        if png := output.get("data", {}).get("image/png"):
            smaller = smaller_png(base64.b64decode(png))
            output.data["image/png"] = base64.b64encode(smaller).decode()
    text = nbformat.writes(notebook) + "\n"
    partial = layout.notebooks / f"{path.stem}.failed.ipynb"
    if failed:
        write_atomically(partial, text)
        return
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # warns of each figure without alt text
    html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": title}})
    write_atomically(layout.notebooks / f"{path.stem}.ipynb", text)
    write_atomically(layout.notebooks / f"{path.stem}.html", html)
    partial.unlink(missing_ok=True)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
