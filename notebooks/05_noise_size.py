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
# # 05 - How much noise can attention see through?
#
# **Question**: noise objects are as large as digits and compete with them for the kept patches. Do
# more of them lower accuracy?
#
# **Published**: 100 to 800 noise objects with digits of 28 px, 5000 training images, canvases of
# 3000 x 3000 px, one run each. Accuracy hardly changes: with that many images noise does no harm.
#
# **Contrast, written before any run**: what accuracy on majority changes from the fewest to the
# most noise objects, by a straight line in doublings, one value a seed. The claim is that noise
# does no harm. *Supports*: equivalent to none, within 5 points. *Contradicts*: off zero and not
# within them. Else *open*.

# %% tags=["parameters"]
profile = "overnight"  # base settings: params/<profile>/base.yaml; the rest is set below
noise_counts = [3, 13]  # noise objects on a canvas; the first is the reference
seeds = [0, 1, 2, 3, 4]  # of training: initial weights, order of images, order of patches
settings = {}  # fields of RunConfig that all these runs share, where the base has others
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import pandas as pd
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import (
    Study,
    arm_dots,
    arm_table,
    attention_against_accuracy,
    change_along,
    effects_over_seeds,
    example_row,
    grouped_bars,
    headline,
    learning_curves,
    points,
    published_accuracy,
    published_beside,
    run_arms,
    show,
    slope_finding,
)

study = Study("05_noise_size", profile, overrides=overrides)
study

# %% [markdown]
# ## The data
# The same test image among few and among many noise objects; digits are outlined.

# %%
names = {count: f"{count} noise object{'s' if count > 1 else ''}" for count in noise_counts}
arms = {names[count]: settings | {"n_noise": count} for count in noise_counts}
examples = [MegapixelMNIST(study.config(**fields).data, "test") for fields in arms.values()]
study.save_figure("data", example_row(examples, list(arms), 0))

# %% [markdown]
# ## What was published
# At its own scale, one run a bar.

# %%
published = published_accuracy("Noise_Size", canvas=3000)
study.save_table("published", published)
study.save_figure("published", grouped_bars(published, x="n_noise", bars=None))

# %% [markdown]
# ## The runs

# %%
records, frame = run_arms(study, arms, seeds)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row.

# %%
theirs = published_beside(frame, published, on=["n_noise"]) if study.same_scale else None
table = arm_table(frame, published=theirs, same_scale=study.same_scale)
study.save_table("summary", table)
show(headline(table))

# %% [markdown]
# ## The figure

# %%
study.save_figure("accuracy", arm_dots(frame, published=theirs, same_scale=study.same_scale))

# %% [markdown]
# Whether the runs had settled when they ended:

# %%
study.save_figure("curves", learning_curves(records, by="n_noise"))

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(frame))

# %% [markdown]
# ## Does accuracy fall with noise?
# What accuracy (majority) changes from the fewest to the most noise objects, by a straight line in
# doublings, one value a seed; *effect* is their mean. The published runs are taken as of one seed,
# the one that their logs print: they have no interval.

# %%
majority, their_majority = (each[each["task"] == "majority"] for each in (frame, published))
changes = [
    change_along(each, "n_noise", by=["seed"]).assign(runs=name)
    for name, each in {"here": majority, "published": their_majority.assign(seed=0)}.items()
]
trends = effects_over_seeds(pd.concat(changes), by=["runs"])
study.save_table("trends", trends)
show(trends[["runs", "n", "effect", "effect_low", "effect_high", "p", "p_none"]])

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
levels = 100 * their_majority["accuracy"]
more = {"direction": 0, "published": trends.set_index("runs")["effect"]["published"]}
more["note"] = f"All published runs reach {levels.min():.1f} to {levels.max():.1f} %, few or many."
contrast = f"straight line from {min(noise_counts)} to {max(noise_counts)} noise objects"
finding = slope_finding("noise does no harm", contrast, frame, "n_noise", **more)
study.finding(finding, figure="accuracy")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout.

# %%
theirs = their_majority.groupby("n_noise")["accuracy"].mean()
rows = table[table["task"] == "majority"]
Markdown(f"""
1. Published, from {theirs.index[0]} to {theirs.index[-1]} noise objects accuracy changes by
   {points(theirs.iloc[-1] - theirs.iloc[0])}, one run each.
2. Of {len(rows) - 1} arms beside the reference of {noise_counts[0]}, the whole interval of the
   effect is below zero in {(rows["effect_high"] < 0).sum()}, above in
   {(rows["effect_low"] > 0).sum()}.
3. {(rows["took_off"] * rows["n"]).sum():.0f} of {rows["n"].sum()} runs took off. Where some did
   not, an arm's mean says first how many these were.
""")

# %% [markdown]
# ## Limits
# - Digits are drawn last: more noise hides no digit, it only competes for attention and for the
#   kept patches.
# - The pool of noise patterns grows with their number as published; else it has
#   one size.
# - More noise also leaves fewer blank patches. Where noise is scarce, attention can settle on blank
#   ones, which lowers accuracy for a reason that published canvases do not have.
# - Intervals are not corrected for the number of arms.
