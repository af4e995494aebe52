"""What a backbone's accuracy costs, as a figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from ipslib.study.arm_figures import arm_colours
from ipslib.study.figures import CHANCE_LINE, GREY
from ipslib.study.tables import chance_level

_COSTS = {
    "mflop_per_patch": "operations of the encoder per patch (millions)",
    "trained": "trained parameters of the encoder",
}


def accuracy_against_cost(
    table: pd.DataFrame, costs: pd.DataFrame, *, task: str = "majority"
) -> Figure:
    """Draw every arm's mean accuracy with its 95 % interval against what its encoder costs.

    Args:
        table: of `arm_table`.
        costs: of `cost_table`, of the same arms.
        task: whose accuracy.
    """
    rows = table[table["task"] == task].merge(costs, on="arm")
    size = {"figsize": (10, 4), "sharey": True, "layout": "constrained"}
    figure, panels = plt.subplots(1, len(_COSTS), **size)
    colours = arm_colours(len(rows))
    for ax, (cost, label) in zip(panels, _COSTS.items(), strict=True):
        for (_, row), colour in zip(rows.iterrows(), colours, strict=True):
            mean = 100 * row["mean"]
            ends = np.array([[mean - 100 * row["low"]], [100 * row["high"] - mean]]).clip(min=0)
            style = {"fmt": "o", "ms": 7, "capsize": 2.5, "elinewidth": 1.2}
            ax.errorbar(row[cost], mean, ends, color=colour, **style)
        ax.set_xscale("log")
        ax.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        ax.xaxis.set_major_formatter(EngFormatter(sep="") if cost == "trained" else "{x:g}")
        ax.set_xlim(rows[cost].min() / 3, rows[cost].max() * 3)
        ax.set(xlabel=label, ylim=(0, 102), yticks=range(0, 101, 20))
        ax.axhline(100 * chance_level(task), **CHANCE_LINE)
    panels[0].set(ylabel="test accuracy (%)", title=task)
    beside = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9, "color": GREY}
    panels[-1].annotate("chance", (1.01, 100 * chance_level(task)), **beside)
    style = {"ls": "", "marker": "o", "ms": 7}
    keys = [
        Line2D([], [], color=colour, label=arm, **style)
        for arm, colour in zip(rows["arm"], colours, strict=True)
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=2, handletextpad=0.3)
    return figure
