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
# **What would refute it**: accuracy that does not rise with the training set, or that at the
# smallest training set is no lower for small digits than for large ones.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
digit_sizes = [12, 16, 20, 28]  # px; noise objects have the same size
noise_counts = [9, 8, 7, 4]  # noise objects on a canvas, one number a digit size
train_sizes = [300, 1500]  # images
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from ipslib.data.megapixel_mnist import MegapixelMNIST
from ipslib.study.figures import grouped_bars, learning_curves
from ipslib.study.gallery import example_row
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.statistics import rising_trend
from ipslib.study.tables import beside_published, long_form, show, summarise

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

# %%
configs = [
    study.config(**setting, n_train=n_train, seed=seed)
    for setting in settings
    for n_train in train_sizes
    for seed in seeds
]
records = study.run(configs)
frame = long_form(records)
Markdown(study.made_of(records))

# %% [markdown]
# ## The table
# Accuracy in the last epoch on the test images, mean over seeds. The first row is the reference:
# the smallest digits and the smallest training set. *Published* is given in `paper`, where the
# published study ran the same setting.

# %%
published = published_accuracy("O2I_datasize", canvas=3000)
summary = summarise(frame, by=["canvas", "digit_size", "o2i_ratio", "n_noise", "n_train"])
same_scale = published if profile == "paper" and not overrides else None
if same_scale is not None:
    on = ["canvas", "digit_size", "n_noise", "n_train"]
    summary = beside_published(summary, same_scale, on=on)
study.save_table("runs", frame)
study.save_table("summary", summary)
show(summary[summary["task"] == "majority"].drop(columns="task"))

# %% [markdown]
# ## The figure
# Mean over seeds with its 95 % interval (of training seeds: data and test images are the same);
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
# Per digit size, over all runs: Spearman's rho with a one-sided permutation test, and the accuracy
# (majority) gained per doubling of the training set with its 95 % interval. With few runs p cannot
# be small: *smallest p* is the least that the test can give.

# %%
majority = frame[frame["task"] == "majority"]
trends = pd.DataFrame(
    {"digit_size": size} | rising_trend(rows["n_train"], rows["accuracy"])._asdict()
    for size, rows in majority.groupby("digit_size")
    if len(rows) > 2 and rows["n_train"].nunique() > 1
)
study.save_table("trends", trends)
show(trends) if len(trends) else Markdown("A test needs two training sizes and three runs.")

# %% [markdown]
# ## Reading

# %%
cells = majority.groupby(["digit_size", "n_train"])["accuracy"]
means = 100 * cells.mean().unstack()
spread = 100 * cells.agg(np.ptp).max()
few, many = min(train_sizes), max(train_sizes)
small, large = min(digit_sizes), max(digit_sizes)
gain = means[many] - means[few]
gap = means.loc[large] - means.loc[small]
luck = (
    f"Seeds of one cell differ by up to {spread:.0f} points: a cell of one run, as published, "
    "tells little by itself."
    if len(seeds) > 1
    else "One seed a cell: how much of this is luck cannot be told."
)
best_size, best_n = means.stack().idxmax()
Markdown(f"""
1. From {few} to {many} training images accuracy on majority changes by
   {", ".join(f"{g:+.0f} points at {size} px" for size, g in gain.items())};
   it rises at {int((gain > 0).sum())} of {len(gain)} digit sizes.
2. The best cell is {best_size} px with {best_n} images:
   {means.loc[best_size, best_n]:.0f} % (chance 10 %).
3. The claim needs a gap between large and small digits that closes with more images. With
   {few} images {large} px stand {gap[few]:+.0f} points from {small} px, with {many} images
   {gap[many]:+.0f}: it {"is smaller" if abs(gap[many]) < gap[few] else "is no smaller"}.
4. Trained attention touches {100 * found["roi_recall"].min():.0f} to
   {100 * found["roi_recall"].max():.0f} % of the digits, {found["times_random"].min():.1f} to
   {found["times_random"].max():.1f} times what random patches would.
5. {luck}
""")

# %% [markdown]
# ## Limits
# - Digit size, noise count and the share of the canvas that noise covers vary together, as in the
#   published design: what is small is also drowned in more objects.
# - Every training set is seen for the same number of epochs, so a larger one also gets more steps;
#   the published runs share this.
# - In `quick` canvas, network and memory are far smaller than published, and patches carry no
#   position, so that `top` can only be guessed among the digits that were read. It shows the
#   direction of effects, not the published numbers; `paper` has those.
# - A run that stays near chance has often not failed to read but to find: where digits kept is
#   close to its random value, attention has settled on empty patches.
