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
# # 08 - How large should a patch be, measured in digits?
#
# **Claim** (arXiv 2412.11237): with few training images, patches that are smaller relative to the
# object let the network generalise better, by up to 15 points on Megapixel MNIST.
#
# **Published**: patches of 25 to 150 px on digits of 84 px, 1000 training images, canvases of
# 3000 x 3000 px, up to three runs a size. They differ in more than the patch: the number of noise
# objects, and at 150 px the number M of kept patches.
#
# **Contrast, written before any run**: what accuracy on majority changes from the smallest to the
# largest patch at the same M, by a straight line in doublings of the side, one value a seed that
# has every size. *Supports*: below zero. *Contradicts*: above zero. *Equivalent to none*: within 5
# points. Else *open*. M patches of another size are another share of the canvas, so every size is
# also run with the kept area M P² held fixed.

# %% tags=["parameters"]
profile = "overnight"  # base settings: params/<profile>/base.yaml; the rest is set below
comparisons = {
    "same M": {  # the first arm is the reference; an arm is what differs from the base run
        "24 px, M 10": {},
        "16 px, M 10": {"patch_size": 16},
        "48 px, M 10": {"patch_size": 48},
    },
    "same kept area": {
        "24 px, M 10": {},
        "48 px, M 3": {"patch_size": 48, "memory_size": 3},
    },
}
seeds = [0, 1, 2, 3, 4]  # of training: initial weights, order of images, order of patches
arm_seeds = {}  # other seeds for some arms
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import (
    BOX_COLOUR,
    CHANCE_LINE,
    PUBLISHED,
    Study,
    arm_colours,
    arm_table,
    attention_against_accuracy,
    bare,
    chance_level,
    change_along,
    cost_table,
    draw_means,
    effects_over_seeds,
    headline,
    published_accuracy,
    published_beside,
    row_legend,
    run_comparisons,
    show,
    slope_finding,
)

study = Study("08_patch_size", profile, overrides=overrides)
study

# %% [markdown]
# ## The patches
# The surroundings of one digit under each grid. Coloured patches touch the digit: a small patch
# sees a stroke, a large one the digit with its surroundings.

# %%
configs = {a: study.config(**fields) for arms in comparisons.values() for a, fields in arms.items()}
sizes = {config.data.patch_size: config.data for config in reversed(configs.values())}
data_sets = [MegapixelMNIST(sizes[size], "test") for size in sorted(sizes)]

# %%
canvas, boxes = np.array(data_sets[0].config.canvas), data_sets[0].batch([0]).boxes[0].numpy()
middles = boxes[:, :2] + boxes[:, 2:] / 2
box = boxes[np.hypot(*(middles - canvas / 2).T).argmin()]  # of the digit nearest to the middle
half = 1.25 * max(sizes)
middle = np.clip(box[:2] + box[2:] / 2, half, np.maximum(canvas - half, half))


def outline(ax, corner, side, **style):
    style = {"facecolor": "none", "edgecolor": "#8c8c8c", "linewidth": 0.6} | style
    ax.add_patch(Rectangle(corner[::-1], side, side, **style))


def draw_grid(ax, data_set):
    grid, image = data_set.grid, data_set.canvas(0)
    ax.imshow(image, cmap="gray", extent=(0, image.shape[1], image.shape[0], 0))
    corners = grid.corners(np.arange(grid.n_patches))
    for corner in corners[np.abs(corners - middle).max(axis=1) < 2 * half]:
        outline(ax, corner, grid.patch_size)
    touching, _ = grid.incidence(box[None])
    for corner in grid.corners(touching):
        outline(ax, corner, grid.patch_size, edgecolor="#f0b429", facecolor="#f0b42938", lw=1.4)
    outline(ax, box[:2], box[2], edgecolor=BOX_COLOUR, linewidth=1.6)
    ax.set_title(f"{grid.patch_size} px, {grid.patch_size / box[2]:.2g} of a digit")
    ax.set_xlabel(f"{len(touching)} patches touch the digit")


# %%
figure, row = plt.subplots(1, len(data_sets), figsize=(3.2 * len(data_sets), 3.75), squeeze=False)
for ax, data_set in zip(row.flat, data_sets, strict=True):
    draw_grid(ax, data_set)
    ax.set(xlim=middle[1] + [-half, half], ylim=middle[0] + [half, -half])
    bare(ax)
study.save_figure("patches", figure)

# %% [markdown]
# What each arm means. *Kept area* is M P² in px, *training pixels* (thousands) what one training
# step encodes with gradient: the batch times the kept area. It sets the memory of training.

# %%
meaning = pd.DataFrame(
    {
        "arm": arm,
        "patch_size": config.data.patch_size,
        "patch_per_digit": config.data.patch_size / config.data.digit_size,
        "n_patches": config.data.grid.n_patches,
        "memory_size": config.model.memory_size,
        "iter_size": config.model.iter_size,
        "batch": config.training.batch_size,
    }
    for arm, config in configs.items()
)
n_kept = meaning[["memory_size", "n_patches"]].min(axis=1)
meaning["kept_area"] = n_kept * meaning["patch_size"] ** 2
meaning["kept share (%)"] = 100 * meaning["kept_area"] / canvas.prod()
meaning["training_pixels"] = (meaning.pop("batch") * meaning["kept_area"] / 1000).round()
study.save_table("patches", meaning)
show(meaning)

# %% [markdown]
# ## The published runs
# At their own scale (majority). Runs that stopped early are left out below, and so are runs whose
# curves are those of another log.

# %%
logs = published_accuracy("Patch_Size", incomplete=True)
columns = ["patch_size", "memory_size", "n_noise", "seed", "epochs_run", "accuracy", "note"]
table = logs[logs["task"] == "majority"].sort_values(["patch_size", "n_noise"])[columns]
published = logs[logs["complete"] & ~logs["note"].str.contains("same curves")]
show(table)

# %% [markdown]
# ## The runs

# %%
records, frame = run_comparisons(study, comparisons, seeds, arm_seeds=arm_seeds)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## The tables
# Accuracy on majority in the last epoch, mean over seeds; the first row is the reference, *effect*
# the mean difference to it. *Published* is given in `paper`, where a published run has the same
# setting. The other tasks are in the CSV file.

# %%
on = ["canvas", "digit_size", "n_noise", "n_train", "patch_size", "memory_size"]
theirs = published_beside(frame, published, on=on) if study.same_scale else None
effects = arm_table(frame, published=theirs, same_scale=study.same_scale)
study.save_table("effects", effects)
for title, rows in effects.groupby("comparison", sort=False):
    display(show(headline(rows), caption=title))

# %% [markdown]
# ## The figure
# Lines are means over seeds with their 95 % interval (from three seeds on), dots single runs,
# dotted lines what random patches would touch. On the right the published runs, whose digits are
# larger and whose patches are the same share of them.

# %%
majority, their_majority = (
    each[each["task"] == "majority"].assign(ratio=each["patch_size"] / each["digit_size"])
    for each in (frame, published)
)
ratios = majority.drop_duplicates("arm").set_index("arm")["ratio"]
means = effects[effects["task"] == "majority"].join(ratios, on="arm").sort_values("ratio")
titles = list(comparisons)


def draw_comparison(axes, title, colour):
    accuracy, kept = axes
    rows, runs = (each[each["comparison"] == title] for each in (means, majority))
    apart = 1 + 0.025 * titles.index(title)  # lines that share a point do not hide each other
    draw_means(accuracy, rows["ratio"] * apart, rows, fmt="o-", ms=5, color=colour, label=title)
    found = 100 * runs.groupby("ratio")[["roi_recall", "roi_recall_random"]].mean()
    kept.plot(found.index * apart, found["roi_recall"], color=colour)
    kept.plot(found.index * apart, found["roi_recall_random"], color=colour, ls=":", lw=1.3)
    for ax, measure in ((accuracy, "accuracy"), (kept, "roi_recall")):
        dots = {"color": colour, "s": 15, "edgecolor": "white", "linewidth": 0.4, "zorder": 5}
        ax.scatter(runs["ratio"] * apart, 100 * runs[measure], **dots)


# %%
figure, (accuracy, kept, right) = plt.subplots(1, 3, figsize=(11.5, 4.4), sharey=True)
for title, colour in zip(titles, arm_colours(len(titles) + 1)[1:], strict=True):
    draw_comparison((accuracy, kept), title, colour)
for marker, (n_noise, runs) in zip("Ds^v", their_majority.groupby("n_noise"), strict=False):
    style = {"ls": "", "marker": marker, "mfc": "none", "mec": PUBLISHED, "mew": 1.6}
    label = f"published, {n_noise:g} noise objects"
    right.plot(runs["ratio"], 100 * runs["accuracy"], label=label, **style)
for ax, runs in ((accuracy, majority), (kept, majority), (right, their_majority)):
    places = runs.groupby("ratio")["patch_size"].first()
    ax.set_xscale("log", base=2)
    ax.set_xticks(places.index, [f"{ratio:.2g}\n{size:g} px" for ratio, size in places.items()])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("patch side / digit side")

# %%
for ax in (accuracy, right):
    ax.axhline(100 * chance_level("majority"), label="chance", **CHANCE_LINE)
accuracy.set(ylim=(0, 102), ylabel="test accuracy (%)", title="majority")
kept.set(title="digits touched by a kept patch", ylabel="digits kept (%)")
right.set(title=f"majority, published ({published['canvas'].iloc[0]:g} px)")
keys = accuracy.get_legend_handles_labels()[0]
row_legend(figure, [*keys, *right.get_legend_handles_labels()[0][:-1]], n_columns=3)
study.save_figure("ratio", figure)

# %% [markdown]
# ## Does attention find the digits?
# A larger patch touches more digits by luck alone; the upright ticks say how many. Towards them
# runs failed to find the digits, low on the right they found and failed to read them.

# %%
once = frame.drop_duplicates(["arm", "id", "task"])
study.save_figure("attention", attention_against_accuracy(once))

# %% [markdown]
# ## What does a patch size cost?
# The encoder's work for one patch, and the training time and peak memory that the runs' records
# state. On a CPU memory is that of the whole process, Python and its libraries included.

# %%
costs = cost_table(frame, records).merge(meaning[["arm", "training_pixels"]], on="arm")
study.save_table("costs", costs)
show(costs[["arm", "training_pixels", "mflop_per_patch", "minutes", "peak_mb", "device"]])

# %% [markdown]
# ## Does accuracy rise as patches shrink?
# What accuracy (majority) changes from the smallest to the largest patch, by a straight line in
# doublings of the side, one value a seed that has every size; *effect* is their mean. The published
# runs of each noise count are taken as of one seed, the one that their logs print, and have no
# interval. A straight line knows no best size in the middle; the figure shows one if there is.

# %%
titles = their_majority["n_noise"].map("published, {:g} noise objects".format)
changes = [
    change_along(runs, "patch_size", by=["seed"]).assign(comparison=title)
    for each in (majority, their_majority.assign(comparison=titles, seed=0))
    for title, runs in each.groupby("comparison", sort=False)
]
trends = effects_over_seeds(pd.concat(changes), by=["comparison"])
study.save_table("trends", trends)
show(trends[["comparison", "n", "effect", "effect_low", "effect_high", "p"]])

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
is_theirs = trends["comparison"].str.startswith("published")
usual = trends[trends["comparison"] == titles.mode()[0]]  # the noise count of most runs
title, runs = next(iter(frame.groupby("comparison", sort=False)))
sides = sorted(runs["patch_size"].unique())
contrast = f"straight line from {sides[0]} to {sides[-1]} px, {title}"
more = {"direction": -1, "published": usual["effect"].max()}
finding = slope_finding("smaller patches read better", contrast, runs, "patch_size", **more)
study.finding(finding, figure="ratio")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. The claim needs accuracy to fall as patches grow, at the same M
# and with the same kept area.

# %%
measures = ["mean", "low", "high", "chance", "roi_recall", "times_random", "took_off", "n"]
arms = means.drop_duplicates("arm").set_index("arm")
minutes = costs.drop_duplicates("arm").set_index("arm")[["training_pixels", "minutes"]]
show(arms[measures].join(minutes).reset_index(), caption="small patches first")

# %%
above = trends["effect_low"] > 0
below = trends["effect_high"] < 0
random = arms["roi_recall"] / arms["times_random"]
cells = their_majority.groupby(["patch_size", "n_noise"])["accuracy"]
n_seeds = sorted({arms["n"].min(), arms["n"].max()})
Markdown(f"""
1. Of {(~is_theirs).sum()} comparisons here, the whole interval of the change from the smallest to
   the largest patch is below zero in {below.sum()}, above in {above.sum()}. Published it is below
   zero at {(trends.loc[is_theirs, "effect"] < 0).sum()} of {is_theirs.sum()} noise counts, without
   an interval.
2. Published runs of one setting, at most {cells.size().max()}, lie up to
   {100 * (cells.max() - cells.min()).max():.0f} points apart.
3. {(arms["took_off"] * arms["n"]).sum():.0f} of {arms["n"].sum()} runs took off; random patches
   alone touch {100 * random.min():.0f} to {100 * random.max():.0f} % of the digits.
4. Seeds an arm: {" to ".join(map(str, n_seeds))}. With fewer than three, what is luck cannot
   be told.
""")

# %% [markdown]
# ## Limits
# - The encoder is the same network at every patch size, so its last feature map is larger for
#   larger patches and averaged over more blank canvas; a network made for each size may do better.
# - With the kept area fixed, larger patches are fewer, at last too few for five digits that lie
#   apart. With M fixed, larger patches show more of the canvas. No design holds everything fixed.
# - I, the patches that compete with the memory at a time, does not shrink as patches grow: where
#   they are large, a larger share of the canvas is compared at once.
# - The published seeds are not repeats of one setting: the second had another noise count at three
#   of the four sizes (see the list above), and of the log that stands for two noise counts at the
#   largest size nobody knows which it is. Published levels are of another scale than ours,
#   but for `paper`.
