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
# # 01 - How small may an object be, and how many images does it cost?
#
# **Claim** (arXiv 2412.11237): the smaller the object-to-image ratio (O2I, the area of one digit
# over that of the canvas), the more training images are needed before the network finds and reads
# the digits; with enough images the ratio no longer matters.
#
# **Published**: 16 runs, four digit sizes by four training-set sizes, one run a cell, on canvases
# of 3000 x 3000 px. Noise objects are as large as digits and fewer where digits are larger.
#
# **Contrast, written before any run**: what the largest digits gain in accuracy on majority from
# the largest rather than the smallest training set, less what the smallest digits gain, by straight
# lines in doublings, one value a seed. *Supports*: below zero, more images help small digits more.
# *Contradicts*: above zero. *Equivalent to none*: within 5 points. Else *open*.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
digit_sizes = [20, 28]  # px; noise objects have the same size
noise_counts = [7, 4]  # noise objects on a canvas, one number a digit size
train_sizes = [250, 1000]  # images
coverage_sizes = []  # px; run once more with as much noise as at coverage_like; may be empty
coverage_like = 28  # px; the digit size whose share of noise they get
coverage_train = 1000  # images, for these runs
earlier = {}  # arms of the published study's earlier runs; only `paper` has them
seeds = [0, 1, 2]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.study import (
    Study,
    arm_dots,
    arm_table,
    beside_published,
    chance_level,
    chance_title,
    change_along,
    effects_over_seeds,
    example_row,
    grouped_bars,
    headline,
    learning_curves,
    long_form,
    paired_differences,
    panel_grid,
    points,
    published_accuracy,
    published_beside,
    run_arms,
    show,
    state,
    summarise,
)

study = Study("01_o2i_datasize", profile, overrides=overrides)
study

# %% [markdown]
# ## The data
# One image of each digit size. Digits are outlined: five of them, three of one class. Everything
# else is noise.

# %%
settings = study.digit_settings(digit_sizes, noise_counts)
examples = [MegapixelMNIST(study.config(**setting).data, "test") for setting in settings]
titles = [f"{e.config.digit_size} px, O2I {100 * e.config.o2i_ratio:.3g} %" for e in examples]
study.save_figure("data", example_row(examples, titles, 0))

# %% [markdown]
# ## The runs
# A digit size by training-set size grid, and further below the same sizes with the coverage of
# noise held fixed: n objects of side s cover n s² pixels of a canvas, where they do not overlap.

# %%
counts = dict(zip(digit_sizes, noise_counts, strict=True))
if coverage_sizes and (unknown := {coverage_like, *coverage_sizes} - {*counts}):
    wanted = f"wanted sizes among digit_sizes, {digit_sizes}"
    raise IpslibError(f"coverage_sizes: {wanted}, got {unknown}; or leave the list empty.")
arms = {}
for size in [coverage_like, *coverage_sizes] if coverage_sizes else []:
    equal = max(1, round(counts[coverage_like] * coverage_like**2 / size**2))
    for n_noise, design in {counts[size]: "as designed", equal: "same coverage"}.items():
        fields = {"digit_size": size, "n_noise": n_noise, "n_train": coverage_train}
        arms[f"{size} px among {n_noise}, {design}"] = fields

# %%
cells = [setting | {"n_train": n_train} for setting in settings for n_train in train_sizes]
beside = [*arms.values(), *earlier.values()]  # looked at further below, trained with the others

# %%
grid, others = (
    [study.config(**fields, seed=seed) for fields in part for seed in seeds]
    for part in (cells, beside)
)
records = study.run([*grid, *others])[: len(grid)]
frame = long_form(records)
Markdown(study.made_of(records))

# %% [markdown]
# ## The table
# Accuracy in the last epoch on the test images, mean over seeds. The first row is the reference:
# the largest digits and the largest training set; down the table images get fewer and digits
# smaller. *Published* is given in `paper`, where the
# published study ran the same setting.

# %%
published = published_accuracy("O2I_datasize", canvas=3000)
on = ["canvas", "digit_size", "n_noise", "n_train"]
summary = summarise(frame, by=[*on, "o2i_ratio"])
same_scale = published if study.same_scale else None
if study.same_scale:
    summary = beside_published(summary, published, on=on)
study.save_table("runs", frame)
study.save_table("summary", summary)
show(summary[summary["task"] == "majority"].drop(columns="task")[::-1])

# %% [markdown]
# ## The figure
# Mean over seeds with its 95 % interval (of training seeds: data and test images are the same;
# from three seeds on);
# dots are single runs, the dotted line is what the best constant answer scores.

# %%
study.save_figure("accuracy", grouped_bars(frame, published=same_scale))

# %% [markdown]
# The published figure, drawn from the published logs at their own scale (3000 x 3000 px, one run
# a bar).

# %%
study.save_figure("published", grouped_bars(published))

# %% [markdown]
# Learning curves of the largest digits: whether the runs had settled when they ended.

# %%
largest = [r for r in records if r["config"]["digit_size"] == max(digit_sizes)]
study.save_figure("curves", learning_curves(largest))

# %% [markdown]
# ## Does attention find the digits?
# A run can fail to *find* the digits or fail to *read* them. *Digits kept* is the share of digits
# touched by one of the M kept patches; *at random* is what M patches drawn blindly would touch.

# %%
runs = frame.drop_duplicates("id")
by = ["digit_size", "n_train"]
found = runs.groupby(by)[["roi_recall", "roi_recall_random", "entropy"]].mean().reset_index()
found["times_random"] = found["roi_recall"] / found["roi_recall_random"]
study.save_table("attention", found)
show(found)

# %% [markdown]
# ## Does accuracy rise with the training set?
# Per digit size: the accuracy (majority) gained from the smallest to the largest training set, by a
# straight line in doublings, one value a seed; *effect* is their mean.

# %%
gains = change_along(frame, "n_train", by=["task", "digit_size", "seed"])
majority = frame[frame["task"] == "majority"]
trends = effects_over_seeds(gains[gains["task"] == "majority"], by=["digit_size"])
columns = ["n", "effect", "effect_low", "effect_high", "p"]
study.save_table("trends", trends)
show(trends[["digit_size", *columns]])

# %% [markdown]
# ## Do more images make up for small digits?
# Mean accuracy as a map, ours and the published one. If small digits catch up, the colours of a
# row grow more alike to the right.


# %%
COLOURS = sns.color_palette("blend:#f1f6f4,#9ad5c2,#2c8fa6,#2a3f86", as_cmap=True)


def size_map(runs):
    tasks, ratios = list(runs["task"].unique()), runs.groupby("digit_size")["o2i_ratio"].first()
    names = {size: f"{size} px\n{100 * ratio:.2g} %" for size, ratio in ratios.items()}
    size = {"each": (4.6, 1.1 + 0.5 * len(names)), "around": (0.8, 0)}
    labels = {"x_label": "training images", "y_label": "digit and O2I"}
    figure, panels = panel_grid(tasks, **size, **labels)
    limits = {"vmin": 0, "vmax": 100, "cmap": COLOURS, "cbar": False}
    for task, rows in runs.groupby("task", sort=False):
        cells = rows.pivot_table("accuracy", "digit_size", "n_train")[::-1].rename(index=names)
        ax, shown = panels[task], {"annot": True, "fmt": ".0f", "linewidths": 1.5} | limits
        named = {"xlabel": ax.get_xlabel(), "ylabel": ax.get_ylabel()}
        sns.heatmap(100 * cells, ax=ax, **shown)
        ax.set(**named)  # those of the margin alone
        ax.tick_params(length=0, rotation=0)
        chance_title(ax, chance_level(task))
    return figure


# %%
study.save_figure("map", size_map(frame))

# %%
study.save_figure("published_map", size_map(published))

# %% [markdown]
# The interaction: how the gain itself changes from the smallest to the largest digits, by a
# straight line in doublings, one value a seed. Below zero, more images help small digits more. The
# published runs are taken as of one seed, the one that their logs print: they have no interval.

# %%
rows = []
for whose, each in {"here": gains, "published": published.assign(seed=0)}.items():
    if whose == "published":
        each = change_along(each, "n_train", by=["task", "digit_size", "seed"])
    closing = change_along(each, "digit_size", by=["task", "seed"])
    rows.append(effects_over_seeds(closing, by=["task"]).assign(runs=whose))
interactions = pd.concat(rows, ignore_index=True)
study.save_table("interactions", interactions)
show(interactions[["runs", "task", *columns]])

# %% [markdown]
# ## Is it size, or the noise that comes with it?
# In the published design larger digits have fewer noise objects, which yet cover more of the
# canvas. Here sizes are compared once with these counts and once with the coverage of the first
# row. *Effect* is the difference to it, on majority.

# %%
if arms:
    _, coverage = run_arms(study, arms, seeds)
    effects = arm_table(coverage)
    study.save_table("coverage_runs", coverage)
    study.save_table("coverage", effects)
show(headline(effects)) if arms else Markdown("No digit size was chosen for this.")

# %%
if arms:
    study.save_figure("coverage", arm_dots(coverage, tasks=["majority"]))

# %% [markdown]
# ## The earlier published runs
# Five runs on canvases of 1500 x 1500 px, filed with this question, whose noise count is not
# stated: 50 objects are taken. They are run in `paper`.

# %%
older = published_accuracy("O2I_datasize", canvas=1500)
shown = older[older["task"] == "majority"][["name", "digit_size", "n_train", "accuracy"]]
if earlier:
    _, frame_1500 = run_arms(study, earlier, seeds)
    theirs = published_beside(frame_1500, older, on=["digit_size"])
    table = arm_table(frame_1500, published=theirs, same_scale=study.same_scale)
    study.save_table("earlier", table)
    shown = headline(table)
show(shown)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
few, many = min(train_sizes), max(train_sizes)
small, large = min(digit_sizes), max(digit_sizes)
theirs = interactions[interactions["task"] == "majority"].set_index("runs")["effect"]
closing = change_along(gains[gains["task"] == "majority"], "digit_size", by=["seed"])
claim = "more images help small digits more"
contrast = f"gain of {large} px from {few} to {many} images, less that of {small} px"
more = {"direction": -1, "by": "digit_size", "published": theirs["published"]}
study.finding(state(claim, contrast, closing, majority, **more), figure="accuracy")

# %% [markdown]
# ## Reading
# The claim needs a gap between large and small digits that closes with more images: *gained* (from
# the smallest to the largest training set, mean of the seeds) that is more for small digits, and an
# interaction below zero. First on majority, then the interaction on every task.

# %%
cells = majority.groupby(["digit_size", "n_train"])["accuracy"]
means, spread = cells.mean().unstack(), cells.agg(np.ptp).max()
gained = means[many] - means[few]
by_size = found.groupby("digit_size")[["roi_recall", "times_random"]].mean()
reading = means[[few, many]].mul(100).add_suffix(" images (%)").join(by_size)
display(show(reading.assign(gained=gained.map(points)).reset_index(), caption="by digit size"))
tested = interactions[interactions["runs"] == "here"].set_index("task")
show(tested[columns].reset_index(), caption="the interaction")

# %% [markdown]
# Size and noise told apart: what accuracy changes at one digit size when the noise that was
# designed is replaced by as much as covers the same share as in the first row. Where it falls, part
# of what looks like size is noise.

# %%
parts = [pd.DataFrame(columns=["digit_size", "accuracy"])]
if arms:
    is_designed = coverage["n_noise"] == coverage["digit_size"].map(counts)
    designs = coverage.assign(arm=np.where(is_designed, "as designed", "same coverage"))
    for size, rows in designs[designs["task"] == "majority"].groupby("digit_size"):
        parts.append(paired_differences(rows, "as designed").assign(digit_size=size))
noise_part = effects_over_seeds(pd.concat(parts), by=["digit_size"])
show(noise_part[["digit_size", *columns]], caption="same coverage, against as designed")

# %%
below, above = (tested["effect_high"] < 0, tested["effect_low"] > 0)
off_zero = (noise_part["effect_low"] * noise_part["effect_high"] > 0).sum()
lines = [
    f"""From {few} to {many} training images mean accuracy rises at {(gained > 0).sum()} of
    {len(gained)} digit sizes; the whole interval of the gain is above zero at
    {(trends["effect_low"] > 0).sum()}.""",
    f"""The whole interval of the interaction is below zero (more images help small digits more) on:
    {", ".join(tested.index[below]) or "no task"}; above zero, against the claim, on:
    {", ".join(tested.index[above]) or "no task"}.""",
    f"""The whole interval of what the coverage of noise does is off zero at {off_zero} of
    {len(noise_part)} digit sizes that were run with both.""",
    f"""Seeds a cell: {len(seeds)}; they differ by up to {100 * spread:.0f} points. A published cell
    is one run.""",
]
if noise_part.empty:
    del lines[2]
Markdown("\n".join(f"{n}. {line}" for n, line in enumerate(lines, start=1)))

# %% [markdown]
# ## Limits
# - Digit size, noise count and the share of the canvas that noise covers vary together, as in the
#   published design: what is small is also drowned in more objects. With the coverage held fixed
#   the count still varies; size, count and coverage cannot all be told apart.
# - The interaction is one of points: near chance and near 100 % the same change of odds is fewer
#   points, so that sizes which all end near 100 % seem to close a gap.
# - Every training set is seen for the same number of epochs, so a larger one also gets more steps;
#   the published runs share this.
# - Outside `paper` canvas, network and memory are far smaller than published, and patches carry no
#   position, so that `top` can only be guessed among the digits that were read. It shows the
#   direction of effects, not the published numbers; `paper` has those.
# - Runs of `quick` have what notebook 17 found to let every one take off; published runs, and those
#   of `overnight`, have not.
# - A run that stays near chance has often not failed to read but to find: where digits kept is
#   close to its random value, attention has settled on empty patches.
