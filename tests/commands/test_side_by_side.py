"""Notebooks side by side: all are executed, and what befalls one costs the others nothing."""

import multiprocessing
import os

import pytest

from ipslib.commands.side_by_side import executed
from ipslib.runs.files import Layout

# Two that each wait for a file of the other cannot end one after the other.
MEET = """
import os, pathlib, time
folder = pathlib.Path(os.environ["IPSLIB_OUTPUTS"])
(folder / "{mine}").touch()
while not (folder / "{other}").exists():
    time.sleep(0.05)
"""
KILL_PARENT = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
SIZES = {"size": 3, "rate": 0.5}


def run(project, stems, lanes=2, begun=None):
    layout = Layout.of("quick", root=project.root).create()
    tasks = [(project.root / "notebooks" / f"{stem}.py", SIZES) for stem in stems]
    begun = begun or (lambda path: None)
    ended = executed(tasks, layout, lanes=lanes, begun=begun)
    return {path.stem: execution for path, execution in ended}


def test_two_run_at_the_same_time_and_a_third_follows(project):
    project.add("01_a", MEET.format(mine="a", other="b"))
    project.add("02_b", MEET.format(mine="b", other="a"))
    project.add("03_c", "1 / 0")
    begun = []
    ended = run(project, ["01_a", "02_b", "03_c"], begun=lambda path: begun.append(path.stem))
    assert begun == ["01_a", "02_b", "03_c"]
    assert [ended[stem].state for stem in begun] == ["done", "done", "failed"]
    assert "ZeroDivisionError" in ended["03_c"].error
    assert multiprocessing.active_children() == []


def test_each_has_its_share_of_the_cores(project, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    said = 'import os\nassert (os.environ["IPSLIB_JOBS"], os.environ["OMP_NUM_THREADS"]) == {}'
    project.add("01_a", said.format(("3", "3")))
    project.add("02_b", said.format(("3", "3")))
    assert [each.error for each in run(project, ["01_a", "02_b"]).values()] == ["", ""]


def test_a_killed_process_fails_its_notebook_only(project):
    project.add("01_bad", KILL_PARENT)
    project.add("02_good", "1")
    project.add("03_more", "1")
    ended = run(project, ["01_bad", "02_good", "03_more"])
    assert "killed by signal 9" in ended["01_bad"].error
    assert ended["01_bad"].title == ended["02_good"].title
    assert ended["02_good"].state == ended["03_more"].state == "done"


def test_an_interruption_leaves_no_process(project):
    project.add("01_a", "import time; time.sleep(120)")
    project.add("02_b", "1")

    def interrupt(path):
        if path.stem == "03_c":
            raise KeyboardInterrupt

    project.add("03_c", "1")
    with pytest.raises(KeyboardInterrupt):
        run(project, ["01_a", "02_b", "03_c"], begun=interrupt)
    assert multiprocessing.active_children() == []


def test_a_single_lane_is_this_process(project):
    project.add("01_a", "import os; assert os.getppid() == pid")
    path = project.root / "notebooks" / "01_a.py"
    path.write_text(path.read_text().replace("size = 1", "size = 1\npid = 0"))
    project.add("02_b", "1")
    layout = Layout.of("quick", root=project.root).create()
    tasks = [(path, SIZES | {"pid": os.getpid()}), (path.with_name("02_b.py"), SIZES)]
    ended = dict(executed(tasks, layout, lanes=1, begun=lambda path: None))
    assert [each.error for each in ended.values()] == ["", ""]
