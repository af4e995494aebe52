import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ipslib.__main__ import main
from ipslib.commands import queue
from ipslib.commands.queue import expected_seconds, next_run, work_queue
from ipslib.errors import IpslibError
from ipslib.runs import profiles
from ipslib.runs.one_run import OutOfTime, RunFailed
from ipslib.runs.provenance import SCHEMA
from ipslib.runs.records import RecordStore
from ipslib.study.published_configs import PublishedRun, published_runs

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "digits": "embedded", "canvas": 84, "digit_size": 28, "patch_size": 28, "n_noise": 1,
    "n_test": 4, "n_train": 8, "width": 0.125, "n_heads": 4, "memory_size": 3, "iter_size": 3,
    "batch_size": 4, "epochs": 2, "warmup_epochs": 0, "encoder": "resnet18", "weights": "none",
    "frozen": False, "mask_k": 0, "noise": "bezier", "stroke_width": 1.925,
    "diversity_weight": 0.0, "semantic_weight": 0.0, "mask_p": 0.0, "mask_in_eval": False,
    "diversity_on": "attention",
}  # fmt: skip
# With all this alike, published runs differ in their seeds 0 to 3 only.


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("IPSLIB_PROGRESS", str(tmp_path / "events"))
    monkeypatch.setattr(profiles, "find_source", lambda: "embedded")
    torch.set_num_threads(1)
    return tmp_path / "outputs"


@pytest.fixture(scope="module")
def runs() -> list[PublishedRun]:
    return published_runs()


# --- which run is next ------------------------------------------------------------------------


def record(config, seconds, device="here") -> dict:
    return {
        "schema": SCHEMA,
        "id": config.id,
        "config": config.flat(),
        "provenance": {"device": device},
        "timing": {"training_seconds": seconds},
    }


def test_times_are_learned_in_proportion(runs):
    known = runs[1].config.replace(n_test=1, eval_every=100)
    assert expected_seconds(known, []) is None

    def seconds(**changes):
        return expected_seconds(known.replace(**changes), [record(known, 1000.0)]) - 20

    assert seconds() == pytest.approx(1000, rel=0.001)
    assert seconds(n_train=4000) == pytest.approx(4000, rel=0.001)
    assert seconds(epochs=50) == pytest.approx(500, rel=0.001)
    assert seconds(canvas=1500) == pytest.approx(1000 * (900 + 300) / (3600 + 300), rel=0.001)
    assert seconds(memory_size=50) == pytest.approx(1000 * (3600 + 150) / (3600 + 300), rel=0.001)
    evaluated = 1000 + 10 * 1000 / 1000 / 100 * 1000 * (3600 + 100) / (3600 + 300)
    assert seconds(n_test=1000, eval_every=10) == pytest.approx(evaluated, rel=0.001)


def test_times_of_other_devices_are_not_learned_from(outputs, monkeypatch):
    records, seen = outputs / "smoke" / "records", []
    records.mkdir(parents=True)
    config = published_runs("smoke", SMALL)[0].config.replace(seed=9)
    made = record(config, 5.0, "another device")
    (records / f"{config.id}.json").write_text(json.dumps(made))
    monkeypatch.setattr(queue, "next_run", lambda missing, store, times, s: seen.append(times))
    work_queue("smoke", 1, SMALL)
    assert seen == [[]]


def test_the_most_similar_record_is_learned_from(runs):
    known = runs[1].config
    other = known.replace(encoder="resnet50", weights="imagenet_v1", frozen=True, canvas=1500)
    times = [record(other, 9000.0), record(known, 1000.0)]
    wanted = known.replace(n_train=2000)
    assert expected_seconds(wanted, times) == expected_seconds(wanted, times[1:])


@pytest.fixture
def store(tmp_path) -> RecordStore:
    folder = tmp_path / "records"
    folder.mkdir()
    return RecordStore(folder)


def test_a_run_that_does_not_fit_is_passed_over_for_one_that_does(runs, store):
    few, many = runs[0], runs[3]  # 800 and 4000 images
    times = [record(many.config, 4000.0)]
    assert next_run([many, few], store, times, 10_000) is many
    assert next_run([many, few], store, times, 2_000) is few
    assert next_run([many, few], store, times, 500) is many  # neither fits: the first is begun
    assert next_run([many, few], store, times, 30) is few  # of which at least an epoch fits
    assert next_run([many, few], store, times, 1) is None
    assert next_run([many, few], store, [], 1) is many  # nothing is known yet
    assert next_run([many, few], store, [], 0) is None


def test_what_was_begun_is_finished_and_what_failed_waits(runs, store):
    first, second, third = runs[:3]
    store.save_checkpoint(third.config, {}, [40.0])
    assert next_run([first, second, third], store, [], 100) is third
    assert next_run([first, second, third], store, [], 30) is first  # no epoch of it fits
    failure = {"schema": SCHEMA, "reason": "diverged", "message": "It diverged."}
    for run in (first, third):
        store.save_failure(failure | {"id": run.config.id})
    assert next_run([first, second, third], store, [], 100) is second
    assert next_run([first, third], store, [], 100) is first


def test_what_another_process_is_at_is_left_to_it(runs, store):
    first, second = runs[:2]
    with store.lock(first.config):
        assert next_run([first, second], store, [], 100) is second
        assert next_run([first], store, [], 100) is None
    assert next_run([first, second], store, [], 100) is first


# --- the work ---------------------------------------------------------------------------------


def test_the_queue_is_worked_off_and_counted(outputs, capsys):
    assert len(published_runs("smoke", SMALL)) == 4  # by seed
    arguments = [text for name, value in SMALL.items() for text in ("-p", name, json.dumps(value))]
    assert main(["queue", "--profile", "smoke", "--minutes", "5", *arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    counted = [line for line in out if "regenerated" in line]
    assert counted == [f"published runs regenerated: {n} of 4" for n in range(5)]
    assert out[1].startswith("O2I_datasize: results_28_28_3000_3000_800n_800d: majority ")
    assert main(["queue", "--profile", "smoke", *arguments]) == 0
    assert capsys.readouterr().out == "published runs regenerated: 4 of 4\n"
    assert main(["queue", "--profile", "smoke", "--list", *arguments]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["done"] * 4


def test_a_run_that_is_out_of_time_goes_on_next_time(outputs, capsys, monkeypatch):
    long, train = SMALL | {"epochs": 2000, "seed": 0}, queue.train_and_record
    assert work_queue("smoke", 1.5 / 60, long) == 0
    out = capsys.readouterr().out
    assert "stops after epoch" in out and "the time is up" in out
    store = RecordStore(outputs / "smoke" / "records")
    [run] = published_runs("smoke", long)
    n_before = len(store.load_checkpoint(run.config)["epoch_seconds"])
    assert 0 < n_before < 2000

    def stop_later(config, store, *, device, deadline, report):
        n = len(store.load_checkpoint(config)["epoch_seconds"])
        assert n == n_before
        return train(config, store, device=device, deadline=deadline, report=report)

    monkeypatch.setattr(queue, "train_and_record", stop_later)
    assert work_queue("smoke", 1.5 / 60, long) == 0
    assert len(store.load_checkpoint(run.config)["epoch_seconds"]) > n_before


def test_a_failing_run_is_tried_twice_after_the_others_and_stops_none(outputs, capsys, monkeypatch):
    train, begun = queue.train_and_record, []

    def fail_first(config, store, **options):
        begun.append(config.training.seed)
        if config.training.seed == 0:
            raise RunFailed("diverged", "the loss is no longer finite in epoch 1.")
        if begun == [0, 1]:
            raise ConnectionError("the weights could not be downloaded")
        return train(config, store, **options)

    monkeypatch.setattr(queue, "train_and_record", fail_first)
    assert work_queue("smoke", 5, SMALL) == 1
    assert begun[0] == 0 and sorted(begun) == [0, 0, 1, 1, 2, 3] and begun[-2:] != [2, 3]
    out = capsys.readouterr().out
    assert "diverged: the loss is no longer finite" in out
    assert "error: ConnectionError: the weights" in out
    assert out.splitlines()[-1] == "published runs regenerated: 3 of 4"
    store = RecordStore(outputs / "smoke" / "records")
    assert [failure["reason"] for failure in store.failures()] == ["diverged"]


def test_a_full_disk_stops_the_queue(outputs, monkeypatch, capsys):
    def fail(config, store, **options):
        raise RunFailed("disk full", "the records take no more files; free some space.")

    monkeypatch.setattr(queue, "train_and_record", fail)
    with pytest.raises(IpslibError, match="free some space"):
        work_queue("smoke", 5, SMALL)


def test_the_time_that_is_up_ends_the_queue_without_a_failure(outputs, monkeypatch, capsys):
    def pause(config, store, **options):
        raise OutOfTime("stops after epoch 1 of 2: the time is up.")

    monkeypatch.setattr(queue, "train_and_record", pause)
    assert work_queue("smoke", 5, SMALL) == 0
    assert capsys.readouterr().out.count("the time is up") == 1


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_are_positive(minutes, outputs, capsys):
    assert main(["queue", "--minutes", minutes]) == 2
    assert "minutes: wanted more than 0" in capsys.readouterr().err
    assert not outputs.exists()


def test_published_runs_are_never_made_of_other_digits(
    outputs, tmp_path, monkeypatch, fresh_digits, capsys
):
    from ipslib.datasets.megapixel_mnist import digits

    monkeypatch.setenv("IPSLIB_DATA", str(tmp_path))
    monkeypatch.setattr(digits, "_network_answers", lambda: False)
    assert main(["queue", "--minutes", "1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ipslib: MNIST is not at ") and err.count("\n") == 1
    assert not outputs.exists()


# --- as a command -----------------------------------------------------------------------------

WITH_TORCH_ALONE = """
import sys
from importlib.machinery import ModuleSpec

class Refuse:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in {refused!r} else None

    def create_module(self, spec):
        raise ImportError(f"{{spec.name}} is not installed")

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Refuse())
from ipslib.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
REFUSED = (
    "papermill", "jupytext", "nbconvert", "nbformat", "IPython", "ipykernel", "matplotlib",
    "seaborn", "sklearn", "statsmodels", "distributed",
)  # fmt: skip


def write_made_up_mnist(root: Path) -> None:
    raw, rng = root / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        images = rng.integers(0, 256, (50, 28, 28), np.uint8)
        labels = np.arange(50, dtype=np.uint8) % 10
        header = struct.pack(">IIII", 0x803, 50, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, 50)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_runs_and_the_queue_need_torch_alone(tmp_path):
    write_made_up_mnist(tmp_path)
    program = WITH_TORCH_ALONE.format(refused=REFUSED)
    settings = SMALL | {"digits": "mnist", "epochs": 1}
    fields = [text for name, value in settings.items() for text in ("-p", name, json.dumps(value))]
    environment = os.environ | {
        "IPSLIB_DATA": str(tmp_path), "IPSLIB_OUTPUTS": str(tmp_path / "outputs"),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def ipslib(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=ROOT, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip

    done = ipslib("queue", "--profile", "smoke", "--minutes", "0.2", *fields)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "published runs regenerated: 0 of 4"
    assert "majority" in done.stdout

    done = ipslib("run", "smoke", "-p", "digits", "mnist", "-p", "epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "majority" in done.stdout

    refused = ipslib("study", "smoke")
    assert refused.returncode != 0 and "is not installed" in refused.stderr


def test_a_list_that_is_read_in_part_is_no_error():
    command = f"{sys.executable} -m ipslib queue --list | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "O2I_datasize" in done.stdout
    assert done.stderr == ""
