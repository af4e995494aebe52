from collections import Counter

import numpy as np
import pandas as pd
import pytest

from ipslib.commands.queue import list_queue
from ipslib.study.published_configs import CATEGORIES, PublishedRun, published_runs


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


def test_what_is_odd_about_a_published_run_is_said(runs, logs, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    completed = [meant_by(log) for _, log in logs[logs["complete"]].iterrows()]
    for _, log in logs[~logs["complete"]].iterrows():
        meant = meant_by(log)
        [run] = [r for r in runs if all(r.config.flat()[k] == v for k, v in meant.items())]
        assert ("incomplete" in run.note) == (meant not in completed), log["name"]
    assert list_queue("paper") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(runs)
    assert sum("incomplete: " in line for line in shown) >= 5
    assert sum("noise count unstated: 50 taken" in line for line in shown) == 12


def test_the_published_start_is_an_option_where_it_is_known(runs):
    started = published_runs(start="published")
    assert [run.name for run in started] == [run.name for run in runs]
    for run, own in zip(started, runs, strict=True):
        known = run.config.published_start
        assert run.config == (own.config.replace(start="published") if known else own.config)
        assert known != ("own start" in run.note)
        unknown = own.config.model.mask_k or own.config.model.encoder == "resnet50"
        assert known == (not unknown and own.config.data.noise != "line")
