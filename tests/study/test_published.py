from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig, chance_level
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.runs.profiles import load_parameters
from ipslib.study.arms import published_beside
from ipslib.study.published import REFERENCE, load_published, published_accuracy, published_curve
from ipslib.study.session import Study
from ipslib.study.statistics import take_off_epoch

LIBRARY = Path(__file__).resolve().parents[3] / "shared" / "published" / "runs.csv"
TASKS = ("majority", "max", "top", "multi", "sign")


@pytest.fixture(scope="module")
def library() -> pd.DataFrame:
    if not LIBRARY.is_file():
        pytest.skip("the published library lies beside the authors' checkout only")
    runs = pd.read_csv(LIBRARY)
    return runs[runs["category"] != "Unfiled"].reset_index(drop=True)


def test_every_filed_run_is_there_with_its_figures(library):
    ours = load_published()
    pd.testing.assert_frame_equal(
        ours[["category", "name", "log"]], library[["category", "name", "log"]], check_dtype=False
    )
    figures = [f"{split}_{task}" for split in ("test", "train", "best") for task in TASKS]
    theirs = library.rename(columns=lambda name: name.replace("best_test_", "best_"))
    pd.testing.assert_frame_equal(ours[figures], theirs[figures])


def test_settings_follow_the_source_that_is_right(library):
    ours = load_published()
    renamed = {
        "n_train_inferred": "n_train", "n_test_inferred": "n_test", "M": "memory_size",
        "I": "iter_size", "enc_type": "encoder", "thickness_in_name": "stroke_width",
        "mask_K": "mask_k",
    }  # fmt: skip
    # The canvas is that of the name, not of a stale patch count.
    same = ["digit_size", "canvas", "n_noise", "patch_size", "seed", "epochs_run", "complete"]
    names = [*same, *renamed.values(), "mask_p"]
    masked = (library["mask_K"] > 0) & (library["mask_p"] > 0)
    theirs = library.rename(columns=renamed)[names]
    theirs.loc[~masked, ["mask_k", "mask_p"]] = 0
    pd.testing.assert_frame_equal(ours[names], theirs, check_dtype=False)
    stale = library["canvas"].notna() & (library["canvas"] != library["canvas_from_config"])
    assert (ours["note"].str.contains("stale patch count") == stale).all()


def test_the_o2i_figure_is_its_sixteen_runs():
    figure = published_accuracy("O2I_datasize", canvas=3000)
    assert figure.groupby("task").size().to_dict() == dict.fromkeys(TASKS[:4], 16)
    majority = figure[figure["task"] == "majority"]
    table = majority.pivot(index="digit_size", columns="n_train", values="accuracy")
    assert table.loc[28].tolist() == [0.43, 0.666, 0.883, 0.983]
    assert table.loc[112].tolist() == [0.842, 0.893, 0.952, 0.987]
    percent = (100 * majority.groupby("digit_size")["o2i_ratio"].first()).round(4)
    assert percent.tolist() == [0.0087, 0.0348, 0.0784, 0.1394]
    assert majority["chance"].unique().tolist() == [chance_level("majority")]


def test_runs_that_stopped_early_are_marked_and_left_out():
    runs = load_published()
    stopped = runs[~runs["complete"]]
    assert stopped["note"].str.match("incomplete: |efficiency log").all()
    assert not runs[runs["complete"]]["note"].str.contains("incomplete").any()
    setting = {"stroke_width": 1.8, "canvas": 1500}
    assert set(published_accuracy("Digit_Thickness", **setting)["seed"]) == {2, 3}
    everything = published_accuracy("Digit_Thickness", incomplete=True, **setting)
    assert set(everything["seed"]) == {1, 2, 3}


def test_long_form_keeps_each_figure_with_its_run_and_task():
    wide = load_published("Noise_Generator").set_index("log")
    long = published_accuracy("Noise_Generator", noise=["line"])
    assert len(long) == 2 * 4
    for row in long.itertuples():
        found = [row.accuracy, row.train_accuracy, row.best_accuracy]
        assert found == [wide.at[row.log, f"{s}_{row.task}"] for s in ("test", "train", "best")]
    signs = published_accuracy("Traffic_Signs", n_train=747)
    assert set(signs["task"]) == {"sign"} and signs["accuracy"].between(0.98, 0.99).all()


@pytest.mark.parametrize(
    ("category", "fields", "message"),
    [
        ("O2I_datasizes", {}, "'O2I_datasize'"),
        ("O2I_datasize", {"canvass": 3000}, "'canvas'"),
        ("O2I_datasize", {"canvas": 2000}, r"\[1500, 3000\]"),
    ],
)
def test_what_was_not_published_is_refused(category, fields, message):
    with pytest.raises(IpslibError, match=message):
        published_accuracy(category, **fields)


def test_a_loaded_table_is_the_callers_own():
    mine = load_published("O2I_datasize")
    mine.loc[:, "test_majority"] = 0.0
    assert load_published("O2I_datasize")["test_majority"].max() > 0.9


@pytest.fixture(scope="module")
def training_logs(library) -> pd.DataFrame:
    """Indexed by log and task; epochs in order, each once."""
    logs = pd.read_csv(LIBRARY.with_name("epochs.csv.gz"), dtype={"log": str})
    logs = logs[logs["split"] == "train"].drop_duplicates(["log", "task", "epoch"])
    return logs.sort_values("epoch").set_index(["log", "task"])


def test_take_off_is_that_of_the_logs(training_logs):
    runs = load_published()
    runs = runs[runs["category"] != "Traffic_Signs"].drop_duplicates("log").set_index("log")
    n_told = 0
    for task in TASKS[:4]:
        for log, run in runs[runs[f"train_{task}"].notna()].iterrows():
            rows = training_logs.loc[(log, task)]
            told = {"n_train": int(run["n_train"]), "share": chance_level(task)}
            expected = take_off_epoch(rows["epoch"].tolist(), rows["metric"].tolist(), **told)
            assert run[f"take_off_{task}"] == pytest.approx(expected, nan_ok=True), (log, task)
            n_told += 1
    assert n_told == 4 * 102
    long = published_accuracy("Digit_Thickness")
    assert (long["took_off"] == long["take_off_epoch"].notna()).all()
    assert load_published("Traffic_Signs").filter(like="take_off_").isna().all(axis=None)


@pytest.mark.parametrize("n_train", [200, 1000, 5000])
def test_no_constant_answer_takes_off_on_a_published_training_set(mnist_root, n_train):
    """So that the share by the task's rule serves, and no run's data are needed."""
    data = MegapixelMNISTConfig(start="published", n_train=n_train, n_noise=1)
    training = MegapixelMNIST(data, "train")
    labels = training.batch(range(n_train)).labels
    for task in data.tasks:
        _, counts = np.unique(labels[task].numpy(), axis=0, return_counts=True)
        bound = {"n_train": n_train, "share": chance_level(task)}
        assert np.isnan(take_off_epoch([1], [counts.max() / n_train], **bound)), task


def test_the_published_curve_is_the_references_log(training_logs):
    curve = published_curve()
    (log,) = load_published("Attention_Masking").set_index("name").loc[[REFERENCE], "log"]
    for task, rows in curve.groupby("task"):
        theirs = training_logs.loc[(log, task)]
        assert rows["epoch"].tolist() == theirs["epoch"].tolist() == list(range(1, 101))
        assert rows["loss"].tolist() == theirs["loss"].tolist()
        assert rows["accuracy"].tolist() == theirs["metric"].tolist()
    assert set(curve["task"]) == set(TASKS[:4])


@pytest.fixture(scope="module")
def signs():
    """The traffic signs' runs that can be compared, as notebook 11 picks them."""
    runs = published_accuracy("Traffic_Signs")
    apart = runs["note"].str.contains("same curves|diversity in name|sets swapped")
    return runs[~apart]


def test_published_fractions_and_chance_are_those_of_the_sets_tested_on():
    runs = published_accuracy("Traffic_Signs", incomplete=True)
    by_size = runs.groupby("n_test")[["fraction", "chance"]].first()
    assert by_size["fraction"].to_dict() == {169: 0.25, 184: 0.25, 341: 0.5, 684: 1.0}
    expected = {169: 112 / 169, 184: 121 / 184, 341: 225 / 341, 684: 451 / 684}
    assert by_size["chance"].to_dict() == pytest.approx(expected, abs=1e-5)
    swapped = runs["note"].str.contains("sets swapped")
    assert swapped[runs["n_test"] == 184].all()  # trained on the test set


def test_every_arm_of_paper_is_a_published_setting_of_signs(signs, monkeypatch, tmp_path):
    setting = ["fraction", "patch_size", "memory_size", "iter_size", "mask_k", "mask_p"]
    setting += ["diversity_weight", "encoder", "weights"]
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    values = load_parameters("paper", "11_traffic_signs")
    study = Study("11_traffic_signs", "paper", base=values["base"])
    arms = pd.DataFrame(
        {"comparison": title, "arm": arm} | study.config(**fields).flat()
        for title, arms in values["comparisons"].items()
        for arm, fields in arms.items()
    )
    theirs = published_beside(arms, signs, on=setting)
    runs = theirs.groupby(["comparison", "arm"]).size()
    assert len(runs) == len(arms)
    runs = runs.droplevel("comparison")
    assert runs.pop("weight 1") == 3 and (runs == 5).all()
    assert set(theirs["log"]) == set(signs.loc[signs["encoder"] == "resnet18", "log"])
