import json
import subprocess
import sys
from pathlib import Path

import pytest

from ipslib.__main__ import main
from ipslib.commands import queue
from ipslib.commands.queue import expected_seconds, next_run, work_queue
from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist import digits
from ipslib.runs import schedule
from ipslib.runs.one_run import RunFailed
from ipslib.runs.records import SCHEMA, RecordStore, Run
from ipslib.study.published_configs import published_runs
from tests.test_package import STUDY, without
from tests.tiny import write_mnist

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


def options(fields: dict) -> list[str]:
    """Fields of a run as a command line has them."""
    return [text for name, value in fields.items() for text in ("-p", name, json.dumps(value))]


@pytest.fixture(scope="module")
def configs() -> list[RunConfig]:
    return [run.config for run in published_runs()]


# --- which run is next ------------------------------------------------------------------------


def record(config, seconds, device="here") -> dict:
    made = {"schema": SCHEMA, "id": config.id, "config": config.flat()}
    made_by = {"provenance": {"device": device}, "timing": {"training_seconds": seconds}}
    return made | made_by


def test_times_are_learned_in_proportion(configs):
    known = configs[1].replace(n_test=1, eval_every=100)
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
    unlike = known.replace(encoder="resnet50", weights="imagenet_v1", frozen=True, canvas=1500)
    times = [record(unlike, 9000.0), record(known, 1000.0)]  # of the most similar record
    assert expected_seconds(known, times) == expected_seconds(known, times[1:])


def test_times_of_other_devices_are_not_learned_from(outputs, monkeypatch):
    records, seen = outputs / "smoke" / "records", []
    records.mkdir(parents=True)
    config = published_runs("smoke", SMALL)[0].config.replace(seed=9)
    made = record(config, 5.0, "another device")
    (records / f"{config.id}.json").write_text(json.dumps(made))
    monkeypatch.setattr(queue, "next_run", lambda waiting, failed, times, s: seen.append(times))
    work_queue("smoke", 1, SMALL)
    assert seen == [[]]


@pytest.fixture
def runs(configs, tmp_path) -> list[Run]:
    return [RecordStore(tmp_path).run(config) for config in configs]


def test_a_run_that_does_not_fit_is_passed_over_for_one_that_does(runs):
    few, many = runs[0], runs[3]  # 800 and 4000 images
    times = [record(many.config, 4000.0)]
    assert next_run([many, few], set(), times, 10_000) is many
    assert next_run([many, few], set(), times, 2_000) is few
    assert next_run([many, few], set(), times, 500) is many  # neither fits: the first is begun
    assert next_run([many, few], set(), times, 30) is few  # of which at least an epoch fits
    assert next_run([many, few], set(), times, 1) is None
    assert next_run([many, few], set(), [], 1) is many  # nothing is known yet
    assert next_run([many, few], set(), [], 0) is None


def test_what_was_begun_is_finished_and_what_failed_waits(runs):
    first, second, third = runs[:3]
    third.save_checkpoint({}, [40.0])
    assert next_run([first, second, third], set(), [], 100) is third
    assert next_run([first, second, third], set(), [], 30) is first  # no epoch of it fits
    assert next_run([first, second, third], {first.id, third.id}, [], 100) is second
    assert next_run([first, third], {first.id, third.id}, [], 100) is first
    with first.lock():  # what another process is at is left to it
        assert next_run([first, second], set(), [], 100) is second
        assert next_run([first], set(), [], 100) is None


# --- the work ---------------------------------------------------------------------------------


def test_the_queue_is_worked_off_and_counted(outputs, capsys):
    arguments = ["--profile", "smoke", *options(SMALL)]
    assert main(["queue", *arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    counted = [line for line in out if "regenerated" in line]
    assert counted == [f"published runs regenerated: {n} of 4" for n in range(5)]
    assert out[1].startswith("O2I_datasize: results_28_28_3000_3000_800n_800d: majority ")
    assert main(["queue", *arguments]) == 0
    assert capsys.readouterr().out == "published runs regenerated: 4 of 4\n"
    assert main(["queue", "--list", *arguments]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["done"] * 4


def test_a_run_that_is_out_of_time_goes_on_next_time(outputs, capsys):
    long = SMALL | {"epochs": 2000, "seed": 0}
    [config] = [run.config for run in published_runs("smoke", long)]
    run, n_before = RecordStore(outputs / "smoke" / "records").run(config), 0
    for _ in range(2):
        assert work_queue("smoke", 1.5 / 60, long) == 0
        assert "time is up" in capsys.readouterr().out
        n_epochs = len(run.checkpoint()["epoch_seconds"])
        assert n_before < n_epochs < 2000
        n_before = n_epochs


def test_a_run_that_fails_is_said_and_stops_no_other(outputs, capsys, monkeypatch):
    train = schedule.train_and_record

    def fail_first(config, store, **options):
        if config.training.seed == 0:
            raise RunFailed("diverged", "the loss is no longer finite in epoch 1.")
        return train(config, store, **options)

    monkeypatch.setattr(schedule, "train_and_record", fail_first)
    assert work_queue("smoke", 5, SMALL) == 1
    out = capsys.readouterr().out
    assert "diverged: " in out and "regenerated: 3 of 4" in out


def test_runs_that_want_weights_which_cannot_be_had_are_passed_over_aloud(
    outputs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(queue, "reachable", lambda url: False)
    wanting = {"width": 1.0, "encoder": "resnet50", "weights": "imagenet_v2", "frozen": True}
    assert work_queue("smoke", 5, SMALL | wanting) == 0
    out = capsys.readouterr().out
    assert "4 runs" in out and "resnet50-11ad3fa6.pth" in out and str(tmp_path) in out
    assert not outputs.exists()


def test_a_small_profile_makes_every_published_run_small(outputs):
    configs = [run.config for run in queue.queued_runs("smoke", None, RecordStore(outputs))]
    sizes = {(config.data.canvas, config.training.epochs) for config in configs}
    assert sizes == {((168, 168), 2)}


def test_a_category_is_a_queue_of_its_own(capsys):
    """Whole: with the runs that an earlier category has too."""
    in_all = [run for run in published_runs() if run.category == "Dataset_Size"]
    alone = published_runs(category="Dataset_Size")
    assert (len(in_all), len(alone)) == (6, 10)
    assert {run.config.id for run in alone} < {run.config.id for run in published_runs()}
    assert main(["queue", "--list", "--category", "Attention_Masking"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if "results_" in line]
    assert len(listed) == 11 and all("Attention_Masking" in line for line in listed)
    assert main(["gpu", "--device", "cpu", "--smoke", "--category", "Noise"]) == 2
    assert "(did you mean 'Noise_" in capsys.readouterr().err


def test_several_queues_share_the_runs(outputs, capsys):
    """Side by side in one call, and beside another call that has one of the runs."""
    first = published_runs("smoke", SMALL)[0].config
    held = RecordStore(outputs / "smoke" / "records").run(first)
    with held.lock():
        assert work_queue("smoke", 5, SMALL, jobs=2) == 0
    out = capsys.readouterr().out
    assert "regenerated: 3 of 4" in out and held.record() is None
    assert work_queue("smoke", 5, SMALL) == 0
    assert held.record()


def test_published_runs_are_never_made_of_other_digits(
    outputs, tmp_path, monkeypatch, fresh_digits, capsys
):
    monkeypatch.setenv("IPSLIB_DATA", str(tmp_path))
    monkeypatch.setattr(digits, "_network_answers", lambda: False)
    assert main(["queue", "--minutes", "1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ipslib: MNIST is not at ") and err.count("\n") == 1
    assert not outputs.exists()


# --- as a command -----------------------------------------------------------------------------


def test_training_needs_torch_alone(outputs, tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("IPSLIB_DATA", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = ["gpu", "--device", "cpu", "--smoke", "--jobs", "2"]
    command += options(SMALL | {"epochs": 1, "digits": "mnist"})
    refused = (
        f"{STUDY} IPython dask distributed imagecodecs jinja2 matplotlib openslide pebble sklearn"
    )
    done = without(refused, f"from ipslib.__main__ import main\nsys.exit(main({command!r}))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "published runs regenerated: 4 of 4"


def test_one_run_is_trained_and_shown(outputs, capsys):
    for _ in range(2):
        assert main(["run", "smoke", *options({"digits": "embedded", "epochs": 1})]) == 0
        out = capsys.readouterr().out
        assert "results_" in out and "majority" in out


MUCH = """
import sys
from pathlib import Path
from types import SimpleNamespace
much = SimpleNamespace(pair_notebooks=lambda: [Path("a/much.ipynb")] * 100_000)
sys.modules["ipslib.commands.notebooks"] = much
from ipslib.__main__ import main
sys.exit(main(["notebooks"]))
"""


def test_output_that_is_read_in_part_is_no_error(tmp_path):
    (tmp_path / "much.py").write_text(MUCH)
    command = f"PYTHONPATH={ROOT} {sys.executable} {tmp_path / 'much.py'} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("wrote a/much.ipynb\n", "")
