import pandas as pd
import pytest

from ipslib.runs.records import RecordStore
from ipslib.study import plateau
from ipslib.training import train
from tests.reference import all_known_blank
from tests.tiny import TINY

CONFIG = TINY.replace(n_noise=0, memory_size=9, dropout=0.1)


def test_a_run_is_watched_without_changing_it_and_only_once(tmp_path, monkeypatch):
    seen = plateau.watch(CONFIG, RecordStore(tmp_path))
    history = train(CONFIG).history
    assert list(seen["epoch"]) == [1, 2]
    for row, epoch in zip(seen.itertuples(), history, strict=True):
        assert row.train_accuracy == epoch["train"]["accuracy"]["majority"]
        assert row.train_loss == epoch["train"]["loss_parts"]["task"]
    monkeypatch.delattr(plateau, "train")
    pd.testing.assert_frame_equal(plateau.watch(CONFIG, RecordStore(tmp_path)), seen)


def test_what_is_measured(tmp_path):
    seen = plateau.watch(CONFIG, RecordStore(tmp_path)).iloc[-1]
    train_set = CONFIG.data.open_split("train")
    batch = train_set.batch(range(len(train_set)))
    assert seen["roi_recall"] == seen["roi_recall_random"] == 1  # M = N: all are kept
    assert all_known_blank(batch).float().mean().item() <= seen["blank"] < 1
    assert seen["turnover"] == 0
    assert seen["encoder_gradient"] > 0
    assert 0 < seen["spread"] < 2


def test_the_start_is_that_of_the_seed_and_no_step_is_made():
    start = plateau.look_at_start(CONFIG)
    assert start == pytest.approx(plateau.look_at_start(CONFIG), nan_ok=True)
    assert start != pytest.approx(plateau.look_at_start(CONFIG.replace(seed=1)), nan_ok=True)
