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
# # 15 - What instead of IPS, at the same memory?
#
# **Question**: training on M patches of an image bounds its memory. Is choosing them worth the
# work, or does something plainer do as well?
#
# **Rivals**, trained on the same images for the same number of epochs, by the same settings:
#
# - *random patches*: M patches by lot, other ones each time;
# - *shrunk image*: the whole image, shrunk by area to as many pixels as M patches have, as one
#   patch;
# - *all patches*: M = N, nothing is selected;
# - *all, encoder frozen*: the same, with an encoder that keeps its initial weights but for its
#   first convolution, which is trained as published, so that gradients pass through all of it.
#
# Digits have 28 px and noise objects one density, whatever the canvas: the larger it is, the rarer
# digits are and the smaller they get in the shrunk image.
#
# **Published**: nothing is set beside it; the runs are this project's own.
#
# **Contrast, written before any run**: accuracy on majority of IPS less that of random patches of
# the same M, on the largest canvas, one value a seed. *Supports*: above zero. *Contradicts*: below
# zero. *Equivalent to none*: within 5 points. Else *open*. IPS is not worth it where a rival is as
# accurate in about as little memory: that is read off the figure, and is no test.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
sides = [384]  # px of the square canvases, the largest last
seeds = [0, 1, 2]  # of training: initial weights, order of images, order of patches
frozen = {"frozen": True}  # what the arm with a frozen encoder has beside all patches
settings = {"n_train": 250}  # fields of RunConfig that all runs share, where the base has others
measured_batch = 64  # images of a measured step
memory_limit_mb = 4000  # that a measured step may ask for, beyond program, digits and network
seconds_limit = 60  # that it may take
n_steps = 3  # timed ones, after some that are not; fewer where they are long
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import math

import pandas as pd
from IPython.display import Markdown, display
from matplotlib.lines import Line2D

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import (
    GREY,
    INK,
    Study,
    arm_colours,
    arm_finding,
    arm_table,
    at_side,
    draw_means,
    example_row,
    log_ticks,
    measure_runs,
    points,
    run_comparisons,
    show,
    task_panels,
)

study = Study("15_alternatives", profile, overrides=overrides)
study

# %% [markdown]
# ## The rivals
# On every canvas the same five arms.

# %%
model, patch_size = study.base.model, study.base.data.patch_size
shrunk_side = round(patch_size * math.sqrt(model.memory_size))  # as many pixels as M patches


def arms_at(side):
    data = at_side(study.config(**settings), side).data
    fields = settings | {"canvas": side, "n_noise": data.n_noise, "n_patterns": data.n_patterns}
    shrunk = {"shrunk_to": shrunk_side, "patch_size": shrunk_side, "memory_size": 1}
    everything = {"memory_size": data.grid.n_patches}
    changes = {
        "IPS": {},
        "random patches": {"selection": "random", "novelty_epochs": 0},  # by lot throughout
        "shrunk image": shrunk,
        "all patches": everything,
        "all, encoder frozen": everything | frozen,
    }
    return {arm: fields | change for arm, change in changes.items()}


comparisons = {f"{side} px": arms_at(side) for side in sides}
configs = {
    (title, arm): study.config(**fields)
    for title, arms in comparisons.items()
    for arm, fields in arms.items()
}
places = pd.DataFrame(list(configs), columns=["comparison", "arm"])

# %% [markdown]
# ## The data
# What is left of a test image when it is shrunk; digits are outlined. *Blank* patches meet no
# object.

# %%
shrunk = [MegapixelMNIST(configs[title, "shrunk image"].data, "test") for title in comparisons]
digit = study.base.data.digit_size
names = [f"{side} px: digits of {digit * shrunk_side / side:.2g} px" for side in sides]
study.save_figure("data", example_row(shrunk, names, 0))

# %%
images = []
for title in comparisons:
    data = configs[title, "IPS"].data
    blank = MegapixelMNIST(data, "test").batch(range(4)).blank_share
    n_patches = data.grid.n_patches
    row = {"canvas": title, "n_patches": n_patches, "n_noise": data.n_noise}
    images.append(row | {"M / N": model.memory_size / n_patches, "blank share": blank})
show(pd.DataFrame(images))

# %% [markdown]
# ## The runs

# %%
records, frame = run_comparisons(study, comparisons, seeds)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## The measurements
# As in notebook 13: a training step of every arm, in a fresh process. *Step memory* is its peak
# beyond what the process held before (program, digits, network). For a few small images the
# libraries themselves take more than the images: batches are of `measured_batch` images, whatever
# the runs had. Drawing and shrinking are part of a step. On the largest canvas classification with
# the frozen encoder is measured too: it keeps nothing for gradients.

# %%
limits = {"memory_limit_mb": memory_limit_mb, "seconds_limit": seconds_limit, "n_steps": n_steps}
kept_in = study.layout.records / "efficiency"
steps = {place: config.replace(batch_size=measured_batch) for place, config in configs.items()}
costs = places.join(measure_runs(list(steps.values()), kept_in, **limits))
study.save_table("costs", costs)
largest = list(comparisons)[-1]
of_frozen = [steps[largest, "all, encoder frozen"]]
without_gradient = measure_runs(of_frozen, kept_in, step="classify", **limits)

# %% [markdown]
# ## The tables
# Accuracy on majority in the last epoch, mean over seeds, beside what a step costs. Whoever keeps
# all patches, or sees the whole image, keeps every digit.

# %%
table = arm_table(frame)
study.save_table("summary", table)
rows = table[table["task"] == "majority"].merge(costs, on=["comparison", "arm"])
rows["step memory (MB)"], rows["ms an image"] = rows["step_mb"].round(1), 1e3 * rows["seconds"]
columns = ["arm", "n", "mean", "low", "high", "took_off", "take_off_epoch", "roi_recall"]
columns += ["step memory (MB)", "ms an image", "outcome"]
for title, each in rows.groupby("comparison", sort=False):
    display(show(each[columns], caption=title))

# %% [markdown]
# ## The figure
# Up and left is better. Large marks are means over seeds with their 95 % interval (from three seeds
# on), dots single runs; a line joins an arm's canvases. The axis of memory is logarithmic.

# %%
arms = list(next(iter(comparisons.values())))
COLOURS = dict(zip(arms, arm_colours(len(arms)), strict=True))
MARKERS = dict(zip(comparisons, "osD^v<>", strict=False))
x_label = f"peak memory of a training step, {measured_batch} images (MB)"
figure, panels = task_panels(["majority"], x_label=x_label, y_label="test accuracy (%)")
ax, runs = panels["majority"], frame[frame["task"] == "majority"]
runs = runs.merge(costs, on=["comparison", "arm"])
dots = {"s": 14, "alpha": 0.75, "linewidth": 0, "zorder": 5}
ax.scatter(runs["step_mb"], 100 * runs["accuracy"], color=runs["arm"].map(COLOURS), **dots)
for (arm, title), each in rows.groupby(["arm", "comparison"], sort=False):
    draw_means(ax, each["step_mb"], each, fmt=MARKERS[title], ms=8, color=COLOURS[arm], mec="white")
for arm, each in rows.groupby("arm", sort=False):
    ax.plot(each["step_mb"], 100 * each["mean"], color=COLOURS[arm], lw=1)

# %%
ax.set(xscale="log")
log_ticks(ax.xaxis)
mark = {"ls": "", "mec": "white", "ms": 8}
keys = [Line2D([], [], marker="o", color=colour, label=arm) for arm, colour in COLOURS.items()]
keys += [Line2D([], [], marker=MARKERS[t], color=GREY, label=t, **mark) for t in comparisons]
keys.append(Line2D([], [], ls="", marker="o", ms=3.5, color=INK, label="one run"))
figure.legend(handles=keys, loc="outside right upper")
figure.set_size_inches(8.4, 4.4)
study.save_figure("memory", figure)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
at_largest = frame[frame["comparison"] == largest]
n_patches = configs[largest, "IPS"].data.grid.n_patches
note = f"On {largest}, where M = {model.memory_size} of N = {n_patches} patches are kept."
more = {"reference": "random patches", "direction": 1, "note": note}
finding = arm_finding("chosen patches beat random ones", at_largest, "IPS", **more)
study.finding(finding, figure="memory")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. Each rival beside IPS on the same canvas: *effect* is its
# accuracy less that of IPS, paired by seed; memory and time are in multiples of those of IPS.

# %%
ips = rows[rows["arm"] == "IPS"].set_index("comparison")
for name, measure in {"times the memory": "step_mb", "times the time": "seconds"}.items():
    rows[name] = rows[measure] / rows["comparison"].map(ips[measure])
rivals = rows[rows["arm"] != "IPS"]
columns = ["comparison", "arm", "effect", "effect_low", "effect_high", "p"]
show(rivals[[*columns, "times the memory", "times the time"]])

# %%
is_as_good = (rivals["effect"] >= 0) & (rivals["took_off"] > 0)
is_as_small = rivals["times the memory"] <= 1.25
best = rows.groupby("comparison")["mean"].transform("max")
near = rows[rows["mean"] >= best - 0.05].dropna(subset="step_mb")
cheapest = near.loc[near.groupby("comparison", sort=False)["step_mb"].idxmin()]
ends = rows.groupby("arm", sort=False)["step_mb"].agg(["first", "last"])
growth = (ends["last"] / ends["first"]).map("{:.1f}".format)
at = rows[rows["comparison"] == largest].set_index("arm")
took_off = (at["took_off"] * at["n"]).map("{:.0f}".format) + " of " + at["n"].astype(str)


def named(chosen):
    return "; ".join(f"{row.arm} ({row.comparison})" for row in chosen.itertuples()) or "none"


# %%
Markdown(f"""
1. On {largest} IPS is at {100 * at["mean"]["IPS"]:.0f} %, random patches at
   {100 * at["mean"]["random patches"]:.0f} % (difference
   {points(finding.effect if finding else math.nan)}, verdict *{finding and finding.verdict}*).
   Their kept patches touch {100 * at["roi_recall"]["IPS"]:.0f} and
   {100 * at["roi_recall"]["random patches"]:.0f} % of the digits.
2. Took off there: {"; ".join(took_off.index + " " + took_off)}. Between two arms that did not,
   a difference says nothing.
3. IPS was not worth it, by means alone, where a rival that took off is as accurate and takes at
   most a quarter more memory: {named(rivals[is_as_good & is_as_small])}. At whatever memory the
   whole interval of the effect is above zero for {named(rivals[rivals["effect_low"] > 0])}; below
   zero for {named(rivals[rivals["effect_high"] < 0])}.
4. Within 5 points of a canvas' best mean, the least memory: {named(cheapest)}.
5. Without any gradient in the frozen encoder, a step on {largest} would take about what
   classification does: {without_gradient["step_mb"][0]:.0f} MB, in place of
   {at["step_mb"]["all, encoder frozen"]:.0f}.
""")

# %%
told = f"From {sides[0]} to {sides[-1]} px memory grows by these factors: "
Markdown(told + "; ".join(growth.index + " " + growth) + "." if len(sides) > 1 else "")

# %% [markdown]
# ## Limits
# - Runs of `quick` and `overnight` have what notebook 17 found to let every one take off. Half of
#   that, novelty, is a way to select, and no help to those that select nothing.
# - Settings were chosen for IPS at one canvas, and all arms have them: a rival tuned for itself may
#   do better, and more epochs or images may change the order.
# - The frozen encoder's weights are those it was initialised with, except where the profile names
#   others. Weights of other images, where they can be had, make a stronger rival.
# - Most patches are blank here and are encoded once for all, which spares random and all patches
#   most. Photographs have none: there random patches take as much memory as those that IPS keeps,
#   and all patches about as much as the whole image.
# - The shrunk image is read by an encoder that was laid out for patches; a network for whole images
#   may read smaller digits. Its size is fixed by M: more memory would buy more pixels.
# - The same M is not the same peak: IPS also looks at patches without gradient, in bounded memory.
#   Where random patches take less, more of them than M would fit, which is not tried.
# - On a CPU a peak holds some MB that libraries keep for themselves.
