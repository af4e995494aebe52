"""The study's runs on traffic signs: what was published, what answers are wrong, and a label for
what is no result on real photographs."""

import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ipslib.datasets.synthetic import NOTE
from ipslib.datasets.traffic_signs.annotations import CLASSES
from ipslib.datasets.traffic_signs.config import PUBLISHED_COUNTS, TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import TrafficSigns
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.study.figures import DIAMOND, GREY, INK, row_legend
from ipslib.study.published import published_accuracy
from ipslib.study.tables import summarise
from ipslib.training import predict

# What tells one published setting from another; fields of RunConfig.
SETTING = (
    *("fraction", "patch_size", "memory_size", "iter_size", "mask_k", "mask_p"),
    *("diversity_weight", "encoder", "weights"),
)
_WEIGHT_IN_NAME = re.compile(r"Diversity_loss_(\d+)D")
_NOT_COMPARED = "same curves|diversity in name|sets swapped"
_FRACTIONS = (1.0, 0.5, 0.25)


def marked(figure: Figure, data: TrafficSignsConfig) -> Figure:
    """A figure of results; where the photographs are drawn, a line below says so."""
    if data.is_synthetic:  # on the right: legends stand above, or below on the left
        style = {"ha": "right", "fontsize": 10, "fontweight": "bold", "color": GREY}
        figure.supxlabel(NOTE, x=0.99, **style)
    return figure


def published_signs() -> pd.DataFrame:
    """The published runs, a row a log.

    Returns:
        The columns of `published_accuracy`, with `fraction` (of the training images), `chance`
        (the share of the most frequent class), `setting` in words, and `compared`: False where a
        run stopped early, repeats another log, trained on the test set, or was configured other
        than its name says. `diversity_weight` is that of the name where the log has none.
    """
    runs = published_accuracy("Traffic_Signs", incomplete=True)
    runs["diversity_weight"] = runs["diversity_weight"].fillna(runs["name"].map(_weight_in_name))
    split, fraction = zip(*map(_test_set, runs["n_train"], runs["n_test"]), strict=True)
    runs["fraction"] = fraction
    runs["chance"] = list(map(_majority_share, split, fraction))
    runs["setting"] = [_in_words(row) for _, row in runs.iterrows()]
    runs["compared"] = runs["complete"] & ~runs["note"].str.contains(_NOT_COMPARED)
    largest_first = ["fraction", "patch_size", "iter_size"]
    by = ["fraction", "encoder", "mask_p", "mask_k", "diversity_weight", *largest_first[1:]]
    return runs.sort_values(
        by, ascending=[name not in largest_first for name in by], kind="stable", ignore_index=True
    )


def published_settings(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a published setting: mean over the runs that can be compared, with its interval."""
    runs = runs[runs["compared"]]
    table = summarise(runs, by=["setting"])
    sizes = runs.groupby("setting")[["n_train", "n_test"]].first().astype("Int64")
    best = runs.groupby("setting")["best_accuracy"].mean().rename("best_accuracy")
    table = table.merge(sizes, on="setting").merge(best, on="setting")
    columns = ["setting", "n_train", "n_test", "n", "mean", "low", "high", "chance"]
    return table[[*columns, "best_accuracy"]]


def published_strip(runs: pd.DataFrame) -> Figure:
    """Draw every published run that can be compared, a row a setting; upright ticks are chance."""
    runs = runs[runs["compared"]]
    settings = list(runs["setting"].unique())
    size = (9, 0.9 + 0.27 * len(settings))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for place, setting in enumerate(settings):
        rows = runs[runs["setting"] == setting]
        mean, chance = 100 * rows["accuracy"].mean(), 100 * rows["chance"].iloc[0]
        ax.plot([chance, chance], [place - 0.35, place + 0.35], color=GREY, linewidth=1.4)
        ax.scatter(100 * rows["accuracy"], [place] * len(rows), s=14, color=INK, zorder=3)
        ax.plot(mean, place, zorder=4, **DIAMOND)
    ax.set(xlim=(0, 102), xticks=range(0, 101, 20), ylim=(len(settings) - 0.4, -0.6))
    ax.set(yticks=range(len(settings)), yticklabels=settings)
    ax.set_xlabel("test accuracy (%), published, on the Swedish traffic signs")
    ax.grid(axis="x")
    keys = [
        Line2D([], [], label="published mean", **DIAMOND),
        Line2D([], [], marker="o", ms=3.5, ls="", color=INK, label="one published run"),
        Line2D([], [], marker="|", ms=9, mew=1.4, ls="", color=GREY, label="most frequent class"),
    ]
    row_legend(figure, keys)
    return figure


def with_sign(data_set: TrafficSigns) -> np.ndarray:
    """Indices of the images that have a limit sign, one of each class in turn."""
    labels = np.array([example.label for example in data_set.examples])
    nth = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    order = np.lexsort((labels, nth))
    return order[labels[order] != CLASSES.index("EMPTY")]


def confusion(networks: Sequence[IPSNet], data_set: TrafficSigns, batch_size: int) -> pd.DataFrame:
    """Count the answers of networks to a set: true classes down, answers along; as in training's
    evaluation, so that the diagonal is the recorded accuracy."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), int)
    for network in networks:
        for output, batch in predict(network, data_set, batch_size):
            answers = output.logits["sign"].argmax(dim=1)
            np.add.at(counts, (batch.labels["sign"].numpy(), answers.cpu().numpy()), 1)
    names = [name.removesuffix("_SIGN") for name in CLASSES]
    return pd.DataFrame(counts, index=names, columns=names).rename_axis(index="true class")


def confusion_figure(counts: pd.DataFrame) -> Figure:
    """Draw a confusion matrix: shares of each true class by colour, counts in the cells."""
    figure, ax = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    shares = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    bar = {"label": "share of the true class (%)"}
    style = {"cmap": "Blues", "vmin": 0, "vmax": 100, "linewidths": 1, "cbar_kws": bar}
    sns.heatmap(shares, annot=counts.to_numpy(), fmt="d", square=True, ax=ax, **style)
    ax.set(xlabel="answer", ylabel="true class")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    return figure


def _weight_in_name(name: str) -> float:
    """`010D` is a weight of 0.1, `1D` of 1."""
    found = _WEIGHT_IN_NAME.search(name)
    if not found:
        return 0.0
    digits = found[1]
    return float(f"0.{digits[1:]}" if digits.startswith("0") else digits)


def _test_set(n_train: float, n_test: float) -> tuple[str, float]:
    """Which set a published run tested on, and the fraction of it that its sizes amount to."""
    for split, other in (("test", "train"), ("train", "test")):
        for fraction in _FRACTIONS:
            if n_test == _size(split, fraction) or n_train == _size(other, fraction):
                return split, fraction
    raise IpslibError(f"wanted sizes of a published set, got {n_train} and {n_test} images.")


def _size(split: str, fraction: float) -> int:
    return sum(int(fraction * count) for count in PUBLISHED_COUNTS[split])


def _majority_share(split: str, fraction: float) -> float:
    return int(fraction * max(PUBLISHED_COUNTS[split])) / _size(split, fraction)


def _in_words(row: pd.Series) -> str:
    said = [f"{100 * row['fraction']:g} %", f"patch {row['patch_size']}"]
    said.append(f"M {row['memory_size']}, I {row['iter_size']}")
    if row["mask_k"]:
        said.append(f"masked K {row['mask_k']}, p {row['mask_p']:g}")
    if row["diversity_weight"]:
        said.append(f"diversity {row['diversity_weight']:g}")
    if row["encoder"] != "resnet18":
        said.append(f"{row['encoder']} {row['weights'].removeprefix('imagenet_')}")
    return ", ".join(said)
