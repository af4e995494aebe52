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
# **What would refute it**: accuracy that falls as noise objects are added.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
noise_counts = [4, 1, 12]  # noise objects on a canvas; the first is the reference
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
settings = {}  # fields of RunConfig that all these runs share, where the base has others
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import pandas as pd
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import (
    Finding,
    Study,
    arm_dots,
    arm_table,
    attention_against_accuracy,
    example_row,
    grouped_bars,
    headline,
    learning_curves,
    per_doubling,
    points,
    published_accuracy,
    published_beside,
    rising_trend,
    run_arms,
    show,
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
# Over all runs: Spearman's rho between noise and loss of accuracy (majority), with a one-sided
# permutation test. *Effect* is the accuracy lost per doubling of the noise, by a straight line,
# with its 95 % interval; *smallest p* the least that the test can give with so few runs.

# %%
majority, their_majority = (each[each["task"] == "majority"] for each in (frame, published))
trends = pd.DataFrame(
    {"runs": name} | rising_trend(each["n_noise"], 1 - each["accuracy"])
    for name, each in {"here": majority, "published": their_majority}.items()
    if len(each) > 2 and each["n_noise"].nunique() > 1
)
study.save_table("trends", trends)
show(trends)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
within = ["canvas", "digit_size", "n_train"]
ours, theirs = (per_doubling(each, "n_noise", within=within) for each in (frame, published))
levels = 100 * their_majority["accuracy"]
note = f"All published runs reach {levels.min():.1f} to {levels.max():.1f} %, few or many."
compared = "per doubling of the noise objects"
finding = ours and Finding(compared, *ours, theirs[0], direction=0, note=note)
study.finding(finding, figure="accuracy")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. A run *found* the digits if it keeps at least half of those that
# random patches would miss; what is not found cannot be read.

# %%
ours, theirs = (each.groupby("n_noise")["accuracy"].mean() for each in (majority, their_majority))
change, their_change = (each.iloc[-1] - each.iloc[0] for each in (ours, theirs))
p = trends.set_index("runs")["p"].reindex(["here", "published"])
rows = table[table["task"] == "majority"]
Markdown(f"""
1. From {ours.index[0]} to {ours.index[-1]} noise objects accuracy changes by {points(change)};
   published, from {theirs.index[0]} to {theirs.index[-1]}, by {points(their_change)}.
2. What would refute the published result is a fall, that is a small p of the trend. Here p is
   {p["here"]:.2g} (nan: too few runs for a test), of the published runs {p["published"]:.2g}.
3. Of {len(rows) - 1} arms beside the reference of {noise_counts[0]}, the whole interval of the
   effect is below zero in {(rows["effect_high"] < 0).sum()}, above in
   {(rows["effect_low"] > 0).sum()}.
4. {rows["n_found"].sum()} of {rows["n"].sum()} runs found the digits. Where some did not, an arm's
   mean says first how many these were.
""")

# %% [markdown]
# ## Limits
# - Digits are drawn last: more noise hides no digit, it only competes for attention and for the
#   kept patches.
# - The pool of noise patterns grows with their number as published; in `quick` it has one size.
# - More noise also leaves fewer blank patches. Where noise is scarce, attention can settle on blank
#   ones, which lowers accuracy for a reason that published canvases do not have.
# - Intervals are not corrected for the number of arms.
