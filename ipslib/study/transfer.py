"""Networks trained in one setting and tested in another: what they learned that carries over."""

from collections.abc import Mapping
from textwrap import fill

import attrs
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.runs.records import RecordStore
from ipslib.study.arms import ArmRuns
from ipslib.study.remeasure import trained_runs
from ipslib.training import evaluate

_PANELS = {"accuracy": "{task}, test accuracy (%)", "roi_recall": "digits kept (%)"}
_LABEL_WIDTH = 14  # characters of a line


def transfer(store: RecordStore, runs: ArmRuns, *, n_images: int) -> pd.DataFrame:
    """Test every arm's networks on the first test images of every arm. Nothing is trained.

    Args:
        store: where the weights lie; runs without weights are left out.
        runs: of `run_arms`, whose arms differ in their data; one arm a run.
        n_images: test images, at most as many as a run has.

    Returns:
        One row per network, arm it is tested on, and task: `trained_on`, `tested_on` (arms),
        `id`, `seed`, `task`, `accuracy`, `roi_recall`, `roi_recall_random`.
    """
    arm_of = runs.frame.groupby("id")["arm"].first()
    test_sets = _test_sets(runs.records, arm_of, n_images)
    rows = []
    for run in trained_runs(store, runs.records):
        record = run.record
        of_run = {"trained_on": arm_of[record["id"]], "id": record["id"]}
        of_run |= {"seed": record["config"]["seed"]}
        for arm, test_set in test_sets.items():
            measured = evaluate(run.network, test_set, run.batch_size)
            found = measured.localisation._asdict()
            of_test = of_run | {"tested_on": arm}
            of_test |= {name: found[name] for name in ("roi_recall", "roi_recall_random")}
            rows += [of_test | {"task": t, "accuracy": a} for t, a in measured.accuracy.items()]
    columns = ("trained_on", "tested_on", "id", "seed", "task", "accuracy")
    return pd.DataFrame(rows, columns=[*columns, "roi_recall", "roi_recall_random"])


def transfer_map(frame: pd.DataFrame, *, task: str = "majority") -> Figure:
    """Draw means over seeds as a heat map, accuracy beside digits kept; a row a training set.

    Args:
        frame: of `transfer`.
        task: whose accuracy.
    """
    rows = frame[frame["task"] == task]
    trained, tested = (list(rows[name].unique()) for name in ("trained_on", "tested_on"))
    size = (3.6 + 2.4 * len(tested), 1.5 + 0.55 * len(trained))
    figure, panels = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for ax, (measure, title) in zip(panels, _PANELS.items(), strict=True):
        means = 100 * rows.pivot_table(values=measure, index="trained_on", columns="tested_on")
        colours = {"vmin": 0, "vmax": 100, "cmap": "crest", "cbar": False}
        sns.heatmap(means.loc[trained, tested], annot=True, fmt=".0f", ax=ax, **colours)
        ax.set(title=title.format(task=task), xlabel="tested on", ylabel="")
        ax.set_xticklabels([fill(arm, _LABEL_WIDTH) for arm in tested])
        ax.tick_params(left=False, bottom=False, labelrotation=0)
    panels[0].set_ylabel("trained on")
    return figure


def _test_sets(
    records: list[dict], arm_of: Mapping[str, str], n_images: int
) -> dict[str, MegapixelMNIST]:
    """Each arm's test set, cut to its first images."""
    sets = {}
    for record in records:
        data = run_config(record["config"]).data
        data = attrs.evolve(data, n_test=min(n_images, data.n_test))
        sets.setdefault(arm_of[record["id"]], MegapixelMNIST(data, "test"))
    return sets
