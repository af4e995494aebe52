"""Execute one notebook without a browser, and keep what it made.

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
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import write_atomically
from ipslib.runs import Kernel
from ipslib.runs.executors import WorkerDied, here, processes
from ipslib.runs.profiles import Layout
from ipslib.runs.progress import Progress, Report, followed
from ipslib.study.figures import smaller_png

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
SECONDS_TO_START = 180
DEAD_KERNEL = (
    "the kernel died, most often for lack of memory: close other programs, "
    "or choose a smaller profile, batch or memory_size"
)


@dataclass(frozen=True)
class Execution:
    """What came of one notebook."""

    title: str
    made: int
    reused: int
    failed: int
    minutes: float
    error: str = ""

    @property
    def state(self) -> str:
        return "failed" if self.error else "done"


Task = tuple[Path, dict[str, Any]]  # a notebook and its parameters
Ended = tuple[Path, Execution]


def read_source(path: Path) -> NotebookNode:
    """Read a percent-format notebook, with the kernel that papermill and JupyterLab ask for."""
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = dict(KERNEL)
    return notebook


def title_of(notebook: NotebookNode) -> str:
    """Return the first heading."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    return "Untitled"


def check_parameters(path: Path, parameters: Iterable[str]) -> None:
    """Refuse names that the notebook's parameters cell lacks; papermill would only warn."""
    cells = [
        cell for cell in read_source(path).cells if "parameters" in cell.metadata.get("tags", ())
    ]
    known = {
        node.id
        for cell in cells
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    parameters = set(parameters)
    for name in sorted(parameters - known):
        raise IpslibError(f"{path.stem} has no parameter {name!r}{did_you_mean(name, known)}")
    if missing := sorted(known - parameters):
        raise IpslibError(
            f"{path.stem}: the profile's file gives no value for {', '.join(missing)}; "
            "it must hold every name of the parameters cell"
        )


def execute_all(tasks: Sequence[Task], layout: Layout, *, lanes: int) -> Iterator[Ended]:
    """Execute notebooks, at most `lanes` at a time, and yield each as it ends.

    Each of several has a share of the cores: while one imports, draws figures or ends with a
    single run, the others go on. One whose process is killed has failed. However this ends, by
    Ctrl-C too, kernels end with it.

    Args:
        tasks: notebooks and their parameters, in the order in which they are begun.
        layout: where results go.
        lanes: with 1 they are executed by this process.
    """
    waiting, lanes = iter(tasks), min(lanes, len(tasks))

    def next_task() -> Task | None:
        task = next(waiting, None)
        if task:
            print(f"{task[0].stem}: running", file=sys.stderr, flush=True)
        return task

    share = max(1, (os.cpu_count() or 1) // lanes) if lanes > 1 else 0
    executor = processes(lanes) if lanes > 1 else here
    work = partial(_execute, layout=layout, share=share)
    with closing(executor(work, next_task, lambda event: None)) as results:
        for (path, _), done in results:
            if isinstance(done, WorkerDied):
                title = title_of(read_source(path))
                done = Execution(title, made=0, reused=0, failed=0, minutes=0.0, error=str(done))
            yield path, done


def _execute(task: Task, _: Report, *, layout: Layout, share: int) -> Execution:
    if share:  # a process of its own, which is ended by a signal: its kernel ends, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return execute(*task, layout, share=share)


def execute(path: Path, parameters: dict[str, Any], layout: Layout, *, share: int = 0) -> Execution:
    """Run a notebook and keep it as NN_name.ipynb and .html, or as NN_name.failed.ipynb.

    Args:
        path: the notebook's source.
        parameters: of its parameters cell.
        layout: where its results go.
        share: cores that it has to itself, where others are executed beside it; its progress is
            then shown in lines, since bars would write over each other.

    Raises:
        IpslibError: for parameters that are not those of its parameters cell.
    """
    check_parameters(path, parameters)
    layout.create()
    source = read_source(path)
    title, start = title_of(source), time.monotonic()
    progress = Progress(path.stem, bar=not share and sys.stderr.isatty())
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, f"{path.stem}.ipynb"), Path(folder, "executed.ipynb")
        nbformat.write(source, before)
        events = Path(folder, "events.jsonl")
        kernel = Kernel(events=str(events), apart=layout.apart, jobs=share)
        with followed(events, progress):
            error = _run(before, after, parameters, kernel)
        _keep(after, path, title, layout, failed=bool(error))
    minutes = (time.monotonic() - start) / 60
    counts = {status: progress.count(status) for status in ("made", "reused", "failed")}
    return Execution(title, **counts, minutes=minutes, error=error)


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
    at_start = f"import ipslib.runs; ipslib.runs.KERNEL = ipslib.runs.{kernel}"
    try:
        with _environment(environment):
            papermill.execute_notebook(
                str(before),
                str(after),
                parameters=parameters,
                progress_bar=False,
                start_timeout=SECONDS_TO_START,
                config=_encrypted(),
                extra_arguments=[f"--IPKernelApp.exec_lines={at_start}"],
            )
    except PapermillExecutionError as error:
        return describe(error)
    except DeadKernelError:
        return DEAD_KERNEL
    return ""


def _encrypted() -> Config:
    """Encrypt the talk with the kernel where Jupyter can; newer kernels warn of plain text."""
    known = "transport_encryption" in KernelManager.class_trait_names()
    return Config({"KernelManager": {"transport_encryption": "auto"} if known else {}})


def describe(error: PapermillExecutionError) -> str:
    """Return the error's last line and the cell it came from; our own errors say it in one."""
    last = (error.evalue.strip().splitlines() or [""])[-1]
    if error.ename == IpslibError.__name__:
        return last
    cell = "\n".join(f"    {line}" for line in error.source.strip().splitlines())
    return f"{error.ename}: {last}\n  in cell [{error.exec_count}]:\n{cell}"


def _keep(executed: Path, path: Path, title: str, layout: Layout, *, failed: bool) -> None:
    if not executed.is_file():
        return
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("jupytext", None)
    make_pictures_smaller(notebook)
    notebook.metadata["papermill"].update(
        input_path=f"notebooks/{path.name}", output_path=f"{path.stem}.ipynb"
    )
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


def make_pictures_smaller(notebook: NotebookNode) -> None:
    """Replace the PNGs in a notebook's outputs by smaller ones that look the same."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                png = smaller_png(base64.b64decode(data["image/png"]))
                data["image/png"] = base64.b64encode(png).decode()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
