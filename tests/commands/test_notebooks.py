import multiprocessing
import os
import signal

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from ipslib.commands import notebooks
from ipslib.commands.notebooks import (
    DEAD_KERNEL,
    check_parameters,
    describe,
    execute,
    execute_all,
    read_source,
    title_of,
)
from ipslib.errors import IpslibError
from ipslib.runs.profiles import Layout

VALUES = {"size": 7, "rate": 0.5}

GOOD = """
import os
from ipslib.runs.progress import reporter, start_event
from tests.tiny import TINY
other = TINY.replace(seed=1)
report = reporter(["of an earlier study"], [TINY, other])
for config, status in ((TINY, "made"), (other, "failed")):
    report({"event": "run", "id": config.id, "status": status})
print("size is", size, "outputs in", os.path.basename(os.environ["IPSLIB_OUTPUTS"]))
"""


def outputs_of(notebook) -> str:
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_an_executed_notebook_is_kept_with_its_page_and_its_counts(project):
    path = project.add("01_good", GOOD, title="01 - Does it run?")
    layout = Layout.of("quick")
    stale = layout.create().notebooks / "01_good.failed.ipynb"
    stale.write_text("of an earlier call")

    result = execute(path, VALUES, layout)

    assert (result.state, result.made, result.reused, result.failed) == ("done", 1, 1, 1)
    assert result.title == "01 - Does it run?"
    names = {file.name for file in layout.notebooks.iterdir()}
    assert names == {"01_good.ipynb", "01_good.html"}
    executed = nbformat.read(layout.notebooks / "01_good.ipynb", as_version=4)
    assert "size is 7 outputs in results" in outputs_of(executed)
    assert executed.metadata.papermill.input_path == "notebooks/01_good.py"
    assert str(project.root.parent) not in str(executed.metadata)
    assert "jupytext" not in executed.metadata
    assert "<title>01 - Does it run?</title>" in (layout.notebooks / "01_good.html").read_text()


def test_a_failing_cell_keeps_the_partial_notebook(project):
    path = project.add("02_bad", "print('so far')\nraise ZeroDivisionError('too\\nsmall')")
    layout = Layout.of("quick")

    result = execute(path, VALUES, layout)

    assert result.state == "failed"
    assert result.error.startswith("ZeroDivisionError: small\n  in cell [3]:")
    assert [file.name for file in layout.notebooks.iterdir()] == ["02_bad.failed.ipynb"]
    partial = nbformat.read(layout.notebooks / "02_bad.failed.ipynb", as_version=4)
    assert "so far" in outputs_of(partial)


def test_a_dead_kernel_is_said_to_be_dead(project):
    path = project.add("03_dead", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    layout = Layout.of("quick")
    result = execute(path, VALUES, layout)
    assert result.error == DEAD_KERNEL
    assert [file.name for file in layout.notebooks.iterdir()] == ["03_dead.failed.ipynb"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"sise": 1, "rate": 1}, "01_good has no parameter 'sise' .did you mean 'size'"),
        ({"size": 1}, "no value for rate"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(project, values, complaint):
    path = project.add("01_good", GOOD)
    layout = Layout.of("quick")
    with pytest.raises(IpslibError, match=complaint):
        execute(path, values, layout)
    assert not layout.folder.exists()


def test_parameters_of_every_plain_literal_are_seen(project):
    path = project.add("01_good", "1")
    literals = 'names = [\n    "a",\n    "b",\n]\nrun: str = "x = y"  # a = b\nnothing = None'
    path.write_text(path.read_text().replace("rate = 0.1", literals))
    check_parameters(path, {"size", "names", "run", "nothing"})


def test_our_own_error_is_its_sentence():
    error = PapermillExecutionError(1, 4, "run()", "IpslibError", "canvas 10 is too small", [])
    assert describe(error) == "canvas 10 is too small"


def test_title_is_the_first_heading_of_a_text_cell(project):
    path = project.add("01_good", "# not this", title="01 - This")
    assert title_of(read_source(path)) == "01 - This"


def test_pictures_of_a_notebook_are_made_smaller(monkeypatch):
    monkeypatch.setattr(notebooks, "smaller_png", lambda png: png[:2])
    picture = nbformat.v4.new_output(
        "display_data", data={"image/png": "YWJjZA==", "text/plain": "x"}
    )
    text = nbformat.v4.new_output("display_data", data={"text/plain": "y"})
    cell = nbformat.v4.new_code_cell(outputs=[picture, text])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text"), cell])
    notebooks.make_pictures_smaller(notebook)
    assert cell.outputs[0].data == {"image/png": "YWI=", "text/plain": "x"}
    assert cell.outputs[1].data == {"text/plain": "y"}


# --- side by side ---

# Two that each wait for a file of the other cannot end one after the other.
MEET = """
import os, pathlib, time
folder = pathlib.Path(os.environ["IPSLIB_OUTPUTS"])
(folder / "{mine}").touch()
while not (folder / "{other}").exists():
    time.sleep(0.05)
"""


def run(project, stems, lanes=2):
    layout = Layout.of("quick").create()
    tasks = [(project.root / "notebooks" / f"{stem}.py", VALUES) for stem in stems]
    return {path.stem: execution for path, execution in execute_all(tasks, layout, lanes=lanes)}


def test_two_run_at_the_same_time_and_a_third_follows(project, capfd):
    project.add("01_a", MEET.format(mine="a", other="b"))
    project.add("02_b", MEET.format(mine="b", other="a"))
    project.add("03_c", "1 / 0")
    ended = run(project, ["01_a", "02_b", "03_c"])
    err = capfd.readouterr().err
    assert "Traceback" not in err  # of processes that are ended, idle
    assert [line for line in err.splitlines() if "running" in line] == [
        "01_a: running",
        "02_b: running",
        "03_c: running",
    ]
    assert [ended[stem].state for stem in sorted(ended)] == ["done", "done", "failed"]
    assert "ZeroDivisionError" in ended["03_c"].error
    assert multiprocessing.active_children() == []


def test_each_has_its_share_of_the_cores(project, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    share = "import os\nimport ipslib.runs\n"
    share += 'assert (ipslib.runs.KERNEL.jobs, os.environ["OMP_NUM_THREADS"]) == (3, "3")'
    project.add("01_a", share)
    project.add("02_b", share)
    assert [each.error for each in run(project, ["01_a", "02_b"]).values()] == ["", ""]


def test_a_killed_process_fails_its_notebook_only(project):
    project.add("01_bad", "import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    project.add("02_good", "1")
    project.add("03_more", "1")
    ended = run(project, ["01_bad", "02_good", "03_more"])
    assert "signal 9" in ended["01_bad"].error
    assert ended["01_bad"].title == ended["02_good"].title
    assert ended["02_good"].state == ended["03_more"].state == "done"


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, though what a shell starts in its background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_leaves_no_process(project, interruptible):
    project.add("01_a", "import time; time.sleep(120)")
    project.add("02_b", f"import os, signal; os.kill({os.getpid()}, signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        run(project, ["01_a", "02_b"])
    assert multiprocessing.active_children() == []


def test_a_single_lane_is_this_process(project):
    project.add("01_a", f"import os; assert os.getppid() == {os.getpid()}")
    project.add("02_b", "1")
    assert [each.error for each in run(project, ["01_a", "02_b"], lanes=1).values()] == ["", ""]
