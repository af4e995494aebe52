# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 - How many training images does it take?
#
# **Claim** (arXiv 2412.11237): below some number of training images the network memorises the
# training set and learns nothing else; above it accuracy on new images rises steeply, then
# levels off.
#
# **Published**: ten runs, 200 to 5000 training images, digits of 28 px among 800 noise objects on
# canvases of 3000 x 3000 px, one run a size.
#
# **What would refute it**: accuracy that rises evenly with every doubling, so that no threshold
# can be fitted, or that does not rise at all.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
train_sizes = [150, 300, 600, 1500]  # images; the largest is the reference
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import pandas as pd
from IPython.display import Markdown
from matplotlib.ticker import LogLocator, NullLocator

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import (
    DIAMOND,
    INK,
    OURS,
    PUBLISHED,
    Study,
    arm_table,
    attention_against_accuracy,
    fit_thresholds,
    headline,
    image_row,
    learning_curves,
    per_doubling,
    points,
    published_accuracy,
    published_beside,
    row_legend,
    run_arms,
    show,
    slope_finding,
    task_panels,
    threshold_table,
)

study = Study("04_dataset_size", profile, overrides=overrides)
study

# %% [markdown]
# ## The data
# The first training images, digits outlined. Every larger training set holds the smaller ones; the
# test images are the same for all sizes.

# %%
sizes = sorted(train_sizes, reverse=True)
arms = {f"{size} images": {"n_train": size} for size in sizes}
examples = MegapixelMNIST(study.config(n_train=sizes[0]).data, "train")
images = [examples.canvas(index) for index in range(3)]
boxes = [examples.batch([index]).boxes[0].numpy() for index in range(3)]
study.save_figure("data", image_row(images, ["first", "second", "third"], boxes=boxes))

# %% [markdown]
# ## The runs

# %%
records, frame = run_arms(study, arms, seeds)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds. The first row is the reference, *effect*
# the mean difference to it. The other tasks are in the CSV file.

# %%
published = published_accuracy("Dataset_Size", canvas=3000)
theirs = published_beside(frame, published, on=["n_train"]) if study.same_scale else None
table = arm_table(frame, published=theirs, same_scale=study.same_scale)
study.save_table("summary", table)
show(headline(table))

# %% [markdown]
# ## The threshold
# A logistic curve in the logarithm of the training set's size, its floor held at chance and its
# ceiling free. The threshold is the size at which accuracy is half-way between the two, with a
# bootstrap interval. Where the runs do not show it, the table says why. The published runs are
# fitted in the same way.

# %%
fits, published_fits = fit_thresholds(frame), fit_thresholds(published)
by_whom = {"here": threshold_table(fits), "published": threshold_table(published_fits)}
thresholds = pd.concat(by_whom, names=["runs"]).reset_index("runs")
study.save_table("thresholds", thresholds)
show(thresholds[["runs", "task", "threshold", "ceiling", "n_runs"]])


# %%
def draw_fit(ax, fit, colour, whose):
    n, curve = fit.curve["n"], 100 * fit.curve
    ax.plot(n, curve["accuracy"], color=colour, label=f"fit, {whose}")
    band = {"alpha": 0.16, "linewidth": 0, "label": "95 % band"}
    ax.fill_between(n, curve["low"], curve["high"], color=colour, **band)
    if not fit.why:
        ax.axvline(fit.n_half, color=colour, lw=1.2, ls="--", label="threshold")


def draw_task(ax, task):
    ours, theirs = (each[each["task"] == task] for each in (frame, published))
    whose = "published" if study.same_scale else "published at its own scale"
    draw_fit(ax, published_fits[task], PUBLISHED, whose)
    ax.plot(theirs["n_train"], 100 * theirs["accuracy"], label="published run", **DIAMOND)
    draw_fit(ax, fits[task], OURS, "here")
    dots = {"s": 24, "color": INK, "edgecolor": "white", "zorder": 5, "label": "one run"}
    ax.scatter(ours["n_train"], 100 * ours["accuracy"], **dots)


# %%
labels = {"x_label": "training images (log scale)", "y_label": "test accuracy (%)"}
figure, panels = task_panels(list(fits), **labels)
for task, ax in panels.items():
    draw_task(ax, task)
    ax.set_xscale("log")
    ax.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
row_legend(figure, ax.get_legend_handles_labels()[0], n_columns=4)
study.save_figure("threshold", figure)

# %% [markdown]
# ## Memorised or learned?
# Accuracy on the training images (dashed) and on the test images (solid): a gap between the two
# is what was memorised.

# %%
study.save_figure("curves", learning_curves(records))

# %%
majority, their_majority = (each[each["task"] == "majority"] for each in (frame, published))
measures = ["train_accuracy", "accuracy"]
gaps = pd.concat(
    {
        whose: rows.groupby("n_train")[measures].mean().reset_index()
        for whose, rows in {"here": majority, "published": their_majority}.items()
    },
    names=["runs"],
).reset_index("runs")
gaps["difference"] = gaps["train_accuracy"] - gaps["accuracy"]
study.save_table("gaps", gaps)
show(gaps)

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(frame))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
within = ["canvas", "digit_size", "n_noise"]
ours, theirs = (per_doubling(each, "n_train", within=within) for each in (frame, published))
finding = slope_finding("per doubling of the training set", ours, theirs)
study.finding(finding, figure="threshold")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout: at the smallest and the largest training set, how far training
# accuracy stands above it there, and the threshold. Thresholds can be compared only where the scale
# is the same; a run *found* the digits if it keeps at least half of those that random patches would
# miss.

# %%
ends = gaps.groupby("runs").nth([0, -1])
show(ends, caption="the smallest and the largest training set")

# %%
words = thresholds[thresholds["task"] == "majority"].set_index("runs")["threshold"]
fit, their_fit = fits["majority"], published_fits["majority"]
overlap = fit.n_low <= their_fit.n_high and their_fit.n_low <= fit.n_high
overlap = "cannot be told" if fit.why else "they do" if overlap else "they do not"
change, their_change = (
    rows["accuracy"].iloc[-1] - rows["accuracy"].iloc[0] for _, rows in ends.groupby("runs")
)
falls = (gaps[gaps["runs"] == "published"]["accuracy"].diff() < 0).sum()
found = table[table["task"] == "majority"].set_index("arm")[["n_found", "n"]].sum()
Markdown(f"""
1. From the smallest to the largest training set accuracy changes by {points(change)}; published
   by {points(their_change)}. It falls at {falls} of the {len(their_majority) - 1} published steps:
   with one run a size, single points are partly luck.
2. The threshold here: {words["here"]}; published: {words["published"]}. Whether the two
   intervals overlap: {overlap}; at another scale than the published one that says nothing.
3. {found["n_found"]} of {found["n"]} runs found the digits; what is not found cannot be read.
""")

# %% [markdown]
# ## Limits
# - Every training set is seen for the same number of epochs, so a larger one also gets more steps;
#   the published runs share this. More images and more steps are not told apart here.
# - Where a size has fewer than five runs the bootstrap draws from the spread of all runs about the
#   curve, the same at every size. If the curve has the wrong form, that counts as spread.
# - Ceiling and threshold are fitted together: as long as accuracy has not levelled off within the
#   sizes run, the one can be traded for the other, and the interval is wide or open.
# - In `quick` the scale is far smaller, so its thresholds are not those of the published setting.
