import multiprocessing
import os
import signal

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from ipslib.commands import notebooks
from ipslib.commands.notebooks import Execution, execute, execute_all, pair_notebooks
from ipslib.errors import IpslibError
from ipslib.runs.profiles import Layout

VALUES = {"size": 7, "rate": 0.5}

GOOD = """# not this heading, which is a comment
import os
from IPython.display import Image, display
from ipslib.runs import reporting
from tests.tiny import TINY
other = TINY.replace(seed=1)
with reporting(["of an earlier study"], [TINY, other]) as report:
    for config, status in ((TINY, "made"), (other, "failed")):
        report({"event": "run", "id": config.id, "status": status})
display(Image(b"abcd", format="png"))
print("size is", size, "outputs in", os.path.basename(os.environ["IPSLIB_OUTPUTS"]))
"""


@pytest.fixture
def layout(project) -> Layout:
    return Layout.of("quick")


def outputs_of(notebook) -> str:
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_an_executed_notebook_is_kept_with_its_page_and_counts(project, layout, monkeypatch):
    monkeypatch.setattr(notebooks, "smaller_png", lambda png: png[:2])
    path = project.add("01_good", GOOD, title="01 - Does it run?")
    stale = layout.create().notebooks / "01_good.failed.ipynb"
    stale.write_text("of an earlier call")

    result = execute(path, VALUES, layout)

    assert (result.state, result.made, result.reused, result.failed) == ("done", 1, 1, 1)
    assert result.title == "01 - Does it run?"
    names = {file.name for file in layout.notebooks.iterdir()}
    assert names == {"01_good.ipynb", "01_good.html"}
    executed = nbformat.read(layout.notebooks / "01_good.ipynb", as_version=4)
    assert "size is 7 outputs in results" in outputs_of(executed)
    [picture] = [each for each in executed.cells[-1].outputs if "data" in each]
    assert picture.data["image/png"].strip() == "YWI="  # made smaller
    assert executed.metadata.papermill.input_path == "notebooks/01_good.py"
    assert str(project.root.parent) not in str(executed.metadata)
    assert "jupytext" not in executed.metadata
    assert "<title>01 - Does it run?</title>" in (layout.notebooks / "01_good.html").read_text()


def test_a_failing_cell_keeps_the_partial_notebook(project, layout):
    path = project.add("02_bad", "print('so far')\nraise ZeroDivisionError('too\\nsmall')")
    result = execute(path, VALUES, layout)
    assert result.state == "failed"
    assert result.error.startswith("ZeroDivisionError: small\n  in cell [3]:")
    assert [file.name for file in layout.notebooks.iterdir()] == ["02_bad.failed.ipynb"]
    partial = nbformat.read(layout.notebooks / "02_bad.failed.ipynb", as_version=4)
    assert "so far" in outputs_of(partial)


def test_a_dead_kernel_is_said_to_be_dead(project, layout):
    path = project.add("03_dead", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert execute(path, VALUES, layout).error == notebooks.DEAD_KERNEL
    assert [file.name for file in layout.notebooks.iterdir()] == ["03_dead.failed.ipynb"]


@pytest.mark.parametrize(
    ("values", "complaint"), [({"sise": 1, "rate": 1}, "'size'"), ({"size": 1}, "rate")]
)
def test_wrong_parameters_are_refused_before_writing(project, layout, values, complaint):
    path = project.add("01_good", GOOD)
    with pytest.raises(IpslibError, match=complaint):
        execute(path, values, layout)
    assert not layout.folder.exists()


def test_parameters_of_every_plain_literal_are_seen(project):
    path = project.add("01_good", "1")
    literals = 'names = [\n    "a",\n    "b",\n]\nrun: str = "x = y"  # a = b\nnothing = None'
    path.write_text(path.read_text().replace("rate = 0.1", literals))
    notebooks.check_parameters(path, {"size", "names", "run", "nothing"})


def test_our_own_error_is_its_sentence():
    error = PapermillExecutionError(1, 4, "run()", "IpslibError", "canvas 10 is too small", [])
    assert notebooks.describe(error) == "canvas 10 is too small"


def test_paired_notebooks_have_a_kernel_and_keep_outputs_of_unchanged_cells(project):
    path = project.add("01_good", "size + 1")
    [paired] = pair_notebooks()
    assert paired.stat().st_mtime == pytest.approx(path.stat().st_mtime)

    notebook = nbformat.read(paired, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="4")]
    nbformat.write(notebook, paired)
    assert pair_notebooks() == []
    path.write_text(path.read_text().replace("rate = 0.1", "rate = 0.2"))
    os.utime(paired, (0, 0))
    assert pair_notebooks() == [paired]
    again = nbformat.read(paired, as_version=4)
    assert again.cells[-1].outputs[0].text == "4"
    assert again.metadata.kernelspec.name == "python3"


def test_an_ipynb_that_something_else_than_jupyterlab_changed_is_kept_and_named(project, capsys):
    path = project.add("01_good", "size + 1")
    [paired] = pair_notebooks()
    notebook = nbformat.read(paired, as_version=4)
    notebook.cells[-1].source = "size + 2"
    nbformat.write(notebook, paired)
    later = path.stat().st_mtime + 60
    os.utime(paired, (later, later))
    assert pair_notebooks() == []
    assert paired.name in capsys.readouterr().err
    assert nbformat.read(paired, as_version=4).cells[-1].source == "size + 2"


# --- side by side ---

# Two that each wait for a file of the other cannot end one after the other; each has its share.
MEET = """
import os, pathlib, time
import ipslib.runs
folder = pathlib.Path(os.environ["IPSLIB_OUTPUTS"])
(folder / "{mine}").touch()
while not (folder / "{other}").exists():
    time.sleep(0.05)
assert (ipslib.runs.KERNEL.jobs, os.environ["OMP_NUM_THREADS"]) == (3, "3")
"""


def run(paths, layout, lanes=2):
    tasks = [(path, VALUES) for path in paths]
    ended = execute_all(tasks, layout.create(), lanes=lanes)
    return {path.stem: execution for path, execution in ended}


def test_two_run_at_once_and_one_that_is_killed_costs_no_other(project, layout, capfd, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    codes = {
        "01_a": MEET.format(mine="a", other="b"),
        "02_b": MEET.format(mine="b", other="a"),
        "03_bad": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
        "04_more": "1 / 0",
    }
    ended = run([project.add(*each) for each in codes.items()], layout)
    err = capfd.readouterr().err
    assert "Traceback" not in err  # of processes that are ended, idle
    begun = [line for line in err.splitlines() if "running" in line]
    assert begun == [f"{stem}: running" for stem in codes]
    assert [ended[stem].state for stem in codes] == ["done", "done", "failed", "failed"]
    assert "signal 9" in ended["03_bad"].error and ended["03_bad"].title == ended["01_a"].title
    assert "ZeroDivisionError" in ended["04_more"].error
    assert multiprocessing.active_children() == []


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, though what a shell starts in its background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_leaves_no_process(project, layout, interruptible):
    first = project.add("01_a", "import time; time.sleep(120)")
    second = project.add("02_b", f"import os, signal; os.kill({os.getpid()}, signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        run([first, second], layout)
    assert multiprocessing.active_children() == []


def test_a_single_lane_is_this_process(project, layout, monkeypatch):
    done = Execution("of this process")
    monkeypatch.setattr(notebooks, "execute", lambda *_, share: done if not share else None)
    paths = [project.add(stem, "1") for stem in ("01_a", "02_b")]
    assert run(paths, layout, lanes=1) == {"01_a": done, "02_b": done}
