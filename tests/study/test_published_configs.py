import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ipslib.config import ARITHMETIC
from ipslib.errors import IpslibError
from ipslib.runs.records import SCHEMA, RecordStore
from ipslib.study.published_configs import (
    CATEGORIES,
    PublishedRun,
    published_runs,
    regenerated,
    renew_readme,
)


@pytest.fixture(scope="module")
def runs() -> list[PublishedRun]:
    return published_runs()


def test_the_figure_comes_first_then_every_setting_once_then_further_seeds(runs):
    figure = {(run.config.data.digit_size, run.config.data.n_train) for run in runs[:16]}
    assert figure == {(size, n) for size in (28, 56, 84, 112) for n in (800, 1000, 2000, 4000)}
    assert {run.config.data.canvas for run in runs[:16]} == {(3000, 3000)}
    assert len({run.config.id for run in runs}) == len(runs)

    settings = [run.config.replace(seed=0).id for run in runs]
    n_settings = len(set(settings))
    assert len(set(settings[:n_settings])) == n_settings  # no further seed among them
    for part in (runs[16:n_settings], runs[n_settings:]):
        order = [CATEGORIES.index(run.category) for run in part]
        assert order == sorted(order)
    further = Counter(run.category for run in runs[n_settings:])
    assert further.keys() == {"Digit_Thickness", "Patch_Size", "Noise_Generator"}


@pytest.fixture
def logs(shared) -> pd.DataFrame:
    """The published logs of the queue's categories that have accuracies."""
    table = pd.read_csv(shared / "published" / "runs.csv")
    return table[table["category"].isin(CATEGORIES) & table["test_majority"].notna()]


def meant_by(log: pd.Series) -> dict:
    """The fields that differ from the published defaults, straight from a log's own columns."""
    masked = log["mask_K"] > 0 and log["mask_p"] > 0
    diverse = log["diversity_weight"] > 0
    thickness = log["category"] == "Digit_Thickness" and log["canvas"] == 1500
    resnet50 = log["enc_type"] == "resnet50"
    pretrained = "imagenet_v2" if "_V2" in log["name"] else "imagenet_v1"
    line = "_original" in log["name"]
    return {
        "digit_size": log["digit_size"],
        "noise_size": log["digit_size"],
        "canvas": [log["canvas"], log["canvas"]],
        "n_noise": 50 if np.isnan(log["n_noise"]) else log["n_noise"],
        "noise": "line" if line else "bezier_pixel",
        "n_train": log["n_train_inferred"],
        "n_test": log["n_test_inferred"],
        "patch_size": log["patch_size"],
        "stroke_width": 1.925 if np.isnan(log["thickness_in_name"]) else log["thickness_in_name"],
        "memory_size": log["M"],
        "iter_size": log["I"],
        "shuffle": log["shuffle"],
        "mask_k": log["mask_K"] if masked else 0,
        "mask_p": log["mask_p"] if masked else 0.0,
        "mask_in_eval": masked,
        "encoder": log["enc_type"],
        "n_stages": 4 if resnet50 else 2,
        "weights": pretrained if log["pretrained"] else "none",
        "frozen": resnet50,
        "semantic_weight": 1.0 if diverse else 0.0,
        "diversity_weight": log["diversity_weight"] if diverse else 0.0,
        "diversity_on": "outputs" if diverse else "attention",
        "epochs": 50 if thickness else log["n_epoch"],
        "batch_size": log["B"],
        "lr": log["lr"],
        "seed": 0 if np.isnan(log["seed"]) else log["seed"],
    }


def test_every_published_run_is_one_of_ours_that_means_the_same(runs, logs):
    ours = [run.config.flat() for run in runs]
    found = set()
    for _, log in logs.iterrows():
        meant = meant_by(log)
        same = [i for i, each in enumerate(ours) if all(each[k] == v for k, v in meant.items())]
        assert len(same) == 1, (log["name"], meant)
        found.update(same)
    assert found == set(range(len(runs)))  # and nothing that was never published
    assert set(logs["category"]) == set(CATEGORIES)


def test_a_setting_of_which_no_run_was_completed_is_said_to_be_one(runs, logs):
    completed = [meant_by(log) for _, log in logs[logs["complete"]].iterrows()]
    for _, log in logs[~logs["complete"]].iterrows():
        meant = meant_by(log)
        [run] = [r for r in runs if all(r.config.flat()[k] == v for k, v in meant.items())]
        assert ("incomplete" in run.note) == (meant not in completed), log["name"]


def test_the_published_start_is_an_option_where_it_is_known(runs):
    started = published_runs(start="published")
    assert [run.name for run in started] == [run.name for run in runs]
    for run, own in zip(started, runs, strict=True):
        known = run.config.published_start
        assert run.config == (own.config.replace(start="published") if known else own.config)
        assert known != ("own start" in run.note)
        unknown = own.config.model.mask_k or own.config.model.encoder == "resnet50"
        assert known == (not unknown and own.config.data.noise != "line")


ROOT = Path(__file__).resolve().parents[2]
MARKED = "# A title\n<!-- made by: python -m ipslib queue --readme -->\nold\n{}\nThe rest.\n"
END = "<!-- end of what was made -->"


@pytest.fixture
def store(tmp_path) -> RecordStore:
    (tmp_path / "records").mkdir()
    return RecordStore(tmp_path / "records")


def write(store: RecordStore, config, version: int = ARITHMETIC) -> None:
    path = store.folder / f"{config.id_by(version)}.json"
    record = {"schema": SCHEMA, "id": path.stem, "arithmetic": version, "config": config.flat()}
    path.write_text(json.dumps(record))


def test_the_readme_counts_the_records_that_are_committed(store, tmp_path):
    listed = subprocess.run(
        ["git", "ls-files", "outputs/paper/records/*.json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout: what is committed is not known")
    for name in listed.stdout.split():
        shutil.copy(ROOT / name, store.folder)
    copy = tmp_path / "README.md"
    shutil.copy(ROOT / "outputs" / "README.md", copy)
    assert not renew_readme(copy, store), "run: python -m ipslib queue --readme"


def test_runs_are_counted_once_by_category_whatever_their_precision(store):
    runs = published_runs()
    nothing = regenerated(store)
    assert sum(each.planned for each in nothing.values()) == len(runs)
    assert {(each.done, each.earlier) for each in nothing.values()} == {(0, 0)}
    assert nothing["O2I_datasize: its figure"] == (0, 0, 16)
    thick = next(run for run in runs if run.category == "Digit_Thickness")
    for config in (runs[0].config, runs[1].config.replace(precision="bf16"), thick.config):
        write(store, config)
    write(store, runs[0].config.replace(precision="bf16"))  # the same run again
    write(store, runs[2].config.replace(epochs=1))  # no published one
    for config in (thick.config, runs[3].config):  # the first is done by today's, too
        write(store, config, version=1)
    counts = regenerated(store)
    assert counts["O2I_datasize: its figure"] == (2, 1, 16)
    assert counts["Digit_Thickness"][:2] == (1, 0)
    assert sum(each.done for each in counts.values()) == 3


def test_only_what_is_between_the_marks_is_renewed(store, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED.format(END))
    assert renew_readme(readme, store)
    text = readme.read_text()
    assert text.startswith("# A title\n") and text.endswith(f"|\n{END}\nThe rest.\n")
    assert "old" not in text and "0 of 16" in text
    assert f"| **all** | 0 of {len(published_runs())} | 0 |\n{END}" in text  # the sum
    assert not renew_readme(readme, store)


@pytest.mark.parametrize("text", ["no marks", MARKED.format("")])
def test_a_readme_without_the_marks_is_refused_and_left(store, tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(IpslibError, match="README.md"):
        renew_readme(readme, store)
    assert readme.read_text() == text
