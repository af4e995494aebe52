import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ipslib.__main__ import main
from ipslib.commands import gpu
from ipslib.commands.gpu_check import Agreement
from ipslib.runs import profiles
from tests.commands.test_queue import REFUSED, SMALL, WITH_TORCH_ALONE, write_made_up_mnist

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [text for name, value in SMALL.items() for text in ("-p", name, json.dumps(value))]


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("IPSLIB_PROGRESS", str(tmp_path / "events"))
    monkeypatch.setattr(profiles, "find_source", lambda: "embedded")
    return tmp_path / "outputs"


def test_the_whole_way_runs_on_a_cpu_with_torch_alone(tmp_path):
    write_made_up_mnist(tmp_path)
    program = WITH_TORCH_ALONE.format(refused=(*REFUSED, "imagecodecs", "openslide", "nbclient"))
    environment = os.environ | {
        "IPSLIB_DATA": str(tmp_path), "IPSLIB_OUTPUTS": str(tmp_path / "outputs"),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    settings = [*SETTINGS, "-p", "digits", "mnist", "-p", "epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, "gpu", "--device", "cpu", "--smoke", *settings],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "The CPU itself against the CPU, fp32:" in out and "agree: " in out
    assert "floor of a step" in out and "peak MB" in out
    order = ("agree: ", "\nplain ", "\nours ", "published runs regenerated: 0 of 4")
    assert sorted(order, key=out.index) == list(order)
    assert out.splitlines()[-1] == "published runs regenerated: 4 of 4"
    assert len(list((tmp_path / "outputs" / "smoke" / "records").glob("*.json"))) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_where_to_go(outputs, capsys):
    assert main(["gpu"]) == 2
    err = capsys.readouterr().err
    assert "finds no GPU here" in err and "--device cpu --smoke" in err and err.count("\n") == 1
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cpu"], "the published scale needs a GPU"),
        (["--device", "cpu", "--smoke", "--minutes", "0"], "wanted more than 0"),
        (["--device", "cpu", "--smoke", "--minutes", "nan"], "wanted more than 0"),
        (["--device", "cpu", "--smoke", "--jobs", "0"], "at least 1, got 25 and 0"),
    ],
)
def test_what_cannot_be_is_refused_before_work(outputs, capsys, arguments, said):
    assert main(["gpu", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not outputs.exists()


def test_devices_that_disagree_train_nothing(outputs, monkeypatch, capsys):
    wrong = Agreement(100, 3, 0.5, 0.0, 0.0)
    monkeypatch.setattr(gpu, "compare_devices", lambda *_, **__: wrong)
    monkeypatch.setattr(gpu, "work_queue", lambda *_: pytest.fail("a run was begun"))
    assert main(["gpu", "--device", "cpu", "--smoke"]) == 1
    out = capsys.readouterr().out
    assert "DISAGREE: 97 of 100" in out and "no run was begun" in out


def test_steps_that_cannot_be_timed_stop_no_run(outputs, monkeypatch, capsys):
    worked = []
    monkeypatch.setattr(gpu, "_agree", lambda *_: True)
    monkeypatch.setattr(gpu, "work_queue", lambda *arguments: worked.append(arguments) or 0)
    monkeypatch.setattr(gpu, "project_root", lambda: outputs)
    assert main(["gpu", "--device", "cpu", "--smoke"]) == 0
    assert "steps are not timed" in capsys.readouterr().out
    [(profile, minutes, overrides)] = worked
    assert profile == "smoke" and 24 < minutes <= 25 and overrides == {}


def test_checks_are_skipped_when_asked(outputs, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_agree", lambda *_: pytest.fail("it was checked"))
    monkeypatch.setattr(gpu, "work_queue", lambda *_: 1)
    assert main(["gpu", "--device", "cpu", "--smoke", "--skip-checks"]) == 1


def test_queues_side_by_side_share_the_runs(outputs, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["--device", "cpu", "--smoke", "--skip-checks", "--jobs", "2"]
    assert main(["gpu", *arguments, *SETTINGS]) == 0
    assert "regenerated: 4 of 4" in capfd.readouterr().out
    assert len(list((outputs / "smoke" / "records").glob("*.json"))) == 4
