"""Patches measured in digits: what a size means, where patches are drawn, and the trend."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.study.maps import BOX_COLOUR
from ipslib.study.patch_scale import (
    _TOUCHING,
    against_patch_ratio,
    patch_table,
    patches_over_digit,
    trends_in_words,
    trends_with_smaller_patches,
)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_a_row_says_what_an_arm_keeps_and_trains_on():
    config = run_config({"digit_size": 84, "patch_size": 25, "memory_size": 400})
    [row] = patch_table({"small": config}).to_dict("records")
    assert row["arm"] == "small"
    assert row["patch_per_digit"] == pytest.approx(25 / 84)
    assert row["n_patches"] == 120**2
    assert row["kept_area"] == 400 * 625
    assert row["kept_share"] == pytest.approx(100 * 400 / 120**2)
    assert row["training_pixels"] == 16 * 250  # thousands, in batches of 16


def test_no_more_is_kept_than_there_is():
    config = run_config({"canvas": 300, "digit_size": 28, "memory_size": 100})
    [row] = patch_table({"all": config}).to_dict("records")
    assert row["kept_area"] == 300 * 300
    assert row["kept_share"] == 100


def drawn(ax, colour: str) -> set[tuple]:
    outlines = [p for p in ax.patches if p.get_edgecolor() == to_rgba(colour)]
    return {(p.get_y(), p.get_x(), p.get_height()) for p in outlines}


def test_patches_that_touch_the_digit_are_coloured_at_every_size(small_data):
    data_sets = [MegapixelMNIST(small_data(patch_size=size), "test") for size in (14, 28, 40)]
    figure = patches_over_digit(data_sets, 2)
    boxes = data_sets[0].batch([2]).boxes[0].numpy()
    for ax, data_set in zip(figure.axes, data_sets, strict=True):
        [(top, left, side)] = drawn(ax, BOX_COLOUR)
        assert [top, left, side, side] in boxes.tolist()
        touching, _ = data_set.grid.incidence(np.array([[top, left, side, side]]))
        corners = data_set.grid.corners(touching)
        size = data_set.grid.patch_size
        assert drawn(ax, _TOUCHING) == {(row, col, size) for row, col in corners.tolist()}
        assert ax.get_xlabel().startswith(f"{len(touching)} ")
        assert (
            ax.get_title(loc="left") + ax.get_title() == f"{size} px, {size / side:.2g} of a digit"
        )
        low, high = sorted(ax.get_xlim())
        assert 0 <= low <= left
        assert left + side <= high <= data_set.config.canvas[1]


def make_frame(accuracy, sizes=(16, 32, 64), seeds=(0, 1, 2), comparison="ours") -> pd.DataFrame:
    """Runs of made-up accuracy, a function of patch size and seed, with the columns of a frame."""
    rows = [
        {
            "comparison": comparison,
            "arm": f"{size} px",
            "id": f"{comparison} {size} {seed}",
            "task": task,
            "seed": seed,
            "patch_size": size,
            "digit_size": 32,
            "n_noise": 100 * seed,
            "canvas": 3000,
            "accuracy": accuracy(size, seed) if task == "majority" else 0.5,
            "n_test": 100,
            "chance": 0.1,
            "roi_recall": size / 100,
            "roi_recall_random": size / 200,
            "entropy": 0.5,
        }
        for size, seed, task in product(sizes, seeds, ("majority", "top"))
    ]
    return pd.DataFrame(rows)


def test_a_trend_is_what_a_halving_of_the_patch_gains():
    falling = make_frame(lambda size, seed: 0.9 - 0.1 * np.log2(size / 16) + seed / 100)
    rising = make_frame(lambda size, seed: 0.1 + size / 100 + seed / 100, comparison="other")
    trends = trends_with_smaller_patches(pd.concat([falling, rising])).set_index("comparison")
    assert trends["runs"].tolist() == [9, 9]
    assert trends.loc["ours", "effect"] == pytest.approx(0.1)
    assert trends.loc["ours", "effect_low"] < 0.1 < trends.loc["ours", "effect_high"]
    assert trends.loc["ours", "p"] < 0.01 < 0.99 < trends.loc["other", "p"]
    said = trends_in_words(trends.reset_index())
    assert "*ours*: +10 points" in said
    assert said.index("speaks for the claim") < said.index("speaks against the claim")


def test_no_trend_is_told_of_too_few_runs():
    few = make_frame(lambda size, seed: 0.5, sizes=(16, 32), seeds=(0,))
    one_size = make_frame(lambda size, seed: 0.5, sizes=(16,), comparison="one size")
    trends = trends_with_smaller_patches(pd.concat([few, one_size]))
    assert trends.empty
    assert "too few runs" in trends_in_words(trends)


def test_an_interval_with_zero_in_it_decides_nothing():
    flat = make_frame(lambda size, seed: 0.5 + seed / 10)
    assert "cannot be told from none" in trends_in_words(trends_with_smaller_patches(flat))


def test_means_runs_and_published_points_stand_at_their_ratio():
    frame = make_frame(lambda size, seed: 0.2 + size / 100 + seed / 10)
    published = make_frame(lambda size, seed: 0.4, sizes=(16, 32), seeds=(1,)).drop(columns="id")
    figure = against_patch_ratio(frame, published)
    accuracy, kept, theirs = figure.axes
    [means] = [container.lines[0] for container in accuracy.containers]
    assert list(means.get_xdata()) == pytest.approx([0.5, 1, 2])
    assert list(means.get_ydata()) == pytest.approx([46, 62, 94])
    [runs] = accuracy.collections[-1:]
    assert len(runs.get_offsets()) == 9
    found, random = kept.lines[:2]
    assert list(found.get_ydata()) == pytest.approx([16, 32, 64])
    assert list(random.get_ydata()) == pytest.approx([8, 16, 32])
    points = theirs.lines[0]
    assert list(points.get_xdata()) == [0.5, 1]
    assert list(points.get_ydata()) == [40, 40]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "ours" in named
    assert "published, 100 noise objects" in named
