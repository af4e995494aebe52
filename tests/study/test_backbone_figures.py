"""Accuracy against cost: every arm stands where its table says."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from ipslib.study.backbone_figures import accuracy_against_cost

TABLE = pd.DataFrame(
    {
        "arm": ["usual", "frozen", "usual", "frozen"],
        "task": ["majority", "majority", "top", "top"],
        "mean": [0.6, 0.2, 0.5, 0.1],
        "low": [0.5, float("nan"), 0.4, 0.0],
        "high": [0.7, float("nan"), 0.6, 0.2],
    }
)
COSTS = pd.DataFrame(
    {"arm": ["usual", "frozen"], "mflop_per_patch": [1.5, 130.0], "trained": [43_000, 800]}
)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize(("task", "means"), [("majority", [60, 20]), ("top", [50, 10])])
def test_arms_stand_at_their_cost_and_mean(task, means):
    figure = accuracy_against_cost(TABLE, COSTS, task=task)
    operations, trained = figure.axes
    for ax, costs in ((operations, [1.5, 130]), (trained, [43_000, 800])):
        marks = [container.lines[0] for container in ax.containers]
        assert [mark.get_xdata()[0] for mark in marks] == costs
        assert [mark.get_ydata()[0] for mark in marks] == pytest.approx(means)
        assert ax.get_xscale() == "log"


def test_the_legend_names_arms_in_their_colours():
    figure = accuracy_against_cost(TABLE, COSTS)
    [legend] = figure.legends
    keys = zip(legend.get_texts(), legend.legend_handles, strict=True)
    named = {text.get_text(): to_hex(key.get_color()) for text, key in keys}
    drawn = [to_hex(each.lines[0].get_color()) for each in figure.axes[0].containers]
    assert named == dict(zip(["usual", "frozen"], drawn, strict=True))
    assert len(set(drawn)) == 2
