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
coverage_sizes = [12]  # px; run once more with as much noise as at coverage_like; may be empty
coverage_like = 28  # px; the digit size whose share of noise they get
coverage_train = 1500  # images, for these runs
earlier = {}  # arms of the published study's earlier runs; only `paper` has them
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import per_doubling, points, slope_finding
from ipslib.study.arm_figures import arm_dots
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.coverage import coverage_arms, coverage_in_words
from ipslib.study.figures import grouped_bars, learning_curves
from ipslib.study.gallery import example_row
from ipslib.study.interactions import interaction_in_words, interaction_table
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.size_figures import size_map
from ipslib.study.statistics import rising_trend
from ipslib.study.tables import beside_published, long_form, show, summarise
from ipslib.study.wording import effect_in_words

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
counts = dict(zip(digit_sizes, noise_counts, strict=True))
arms = coverage_arms(counts, coverage_sizes, like=coverage_like) if coverage_sizes else {}
arms = {arm: fields | {"n_train": coverage_train} for arm, fields in arms.items()}
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
summary = summarise(frame, by=["canvas", "digit_size", "o2i_ratio", "n_noise", "n_train"])
same_scale = published if profile == "paper" and not overrides else None
if same_scale is not None:
    on = ["canvas", "digit_size", "n_noise", "n_train"]
    summary = beside_published(summary, same_scale, on=on)
study.save_table("runs", frame)
study.save_table("summary", summary)
show(summary[summary["task"] == "majority"].drop(columns="task")[::-1])

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
# ## Do more images make up for small digits?
# Mean accuracy as a map, ours and the published one. If small digits catch up, the colours of a
# row grow more alike to the right.

# %%
study.save_figure("map", size_map(frame))

# %%
study.save_figure("published_map", size_map(published))

# %% [markdown]
# The interaction in a binomial model of right answers, in log odds per doubling (*per both*, with
# its 95 % bounds): below zero, more images help small digits more. Published runs are tested the
# same way.

# %%
tests = {"here": interaction_table(frame), "published": interaction_table(published)}
interactions = pd.concat(tests, names=["runs"]).reset_index("runs")
study.save_table("interactions", interactions)
show(interactions)

# %% [markdown]
# ## Is it size, or the noise that comes with it?
# In the published design larger digits have fewer noise objects, which yet cover more of the
# canvas. Here sizes are compared once with these counts and once with the coverage of the first
# row. *Effect* is the difference to it, on majority.

# %%
if arms:
    coverage = run_arms(study, arms, seeds)
    effects = arm_table(coverage.frame)
    study.save_table("coverage_runs", coverage.frame)
    study.save_table("coverage", effects)
show(headline(effects)) if arms else Markdown("No digit size was chosen for this.")

# %%
if arms:
    study.save_figure("coverage", arm_dots(coverage.frame, tasks=["majority"]))

# %% [markdown]
# ## The earlier published runs
# Five runs on canvases of 1500 x 1500 px, filed with this question, whose noise count is not
# stated: 50 objects are taken. They are run in `paper`.

# %%
older = published_accuracy("O2I_datasize", canvas=1500)
if earlier:
    theirs = published_arms(older, {a: {"digit_size": earlier[a]["digit_size"]} for a in earlier})
    runs_1500 = run_arms(study, earlier, seeds)
    table = arm_table(runs_1500.frame, published=theirs, same_scale=not overrides)
    study.save_table("earlier", table)
    shown = show(headline(table))
else:
    shown = show(older[older["task"] == "majority"][["name", "digit_size", "n_train", "accuracy"]])
shown

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
ours, theirs = (
    per_doubling(each, "digit_size", within=["canvas", "n_train"]) for each in (frame, published)
)
finding = slope_finding("per doubling of the digit's side", ours, theirs)
gain = per_doubling(frame, "n_train", within=["canvas", "digit_size", "n_noise"])
if finding and gain:
    their_gain = per_doubling(published, "n_train", within=["digit_size"])
    note = f"A doubling of the training set gives {points(gain.effect)}, published "
    finding = finding._replace(note=f"{note}{points(their_gain.effect)}.")
study.finding(finding, figure="accuracy")

# %% [markdown]
# ## Reading

# %%
by_cell = majority.groupby(["digit_size", "n_train"])["accuracy"]
means = 100 * by_cell.mean().unstack()
spread = 100 * by_cell.agg(np.ptp).max()
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
tested = interactions[interactions["task"] == "majority"].set_index("runs")
whose = ", ".join(f"{runs}: {interaction_in_words(row)}" for runs, row in tested.iterrows())
held = "; ".join(f"*{arm}* {effect_in_words(effects, arm)}" for arm in list(arms)[1:])
told = coverage_in_words(effects, arms) if arms else ""

# %%
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
5. The interaction on majority: {whose}.
6. Size and noise told apart, against *{next(iter(arms), "nothing")}*: {held or "no arm"}. {told}
7. {luck}
""")

# %% [markdown]
# ## Limits
# - Digit size, noise count and the share of the canvas that noise covers vary together, as in the
#   published design: what is small is also drowned in more objects. With the coverage held fixed
#   the count still varies; size, count and coverage cannot all be told apart.
# - The interaction is one of odds. In points it can be another: near chance and near 100 % the
#   same change of odds is fewer points.
# - Every training set is seen for the same number of epochs, so a larger one also gets more steps;
#   the published runs share this.
# - In `quick` canvas, network and memory are far smaller than published, and patches carry no
#   position, so that `top` can only be guessed among the digits that were read. It shows the
#   direction of effects, not the published numbers; `paper` has those.
# - A run that stays near chance has often not failed to read but to find: where digits kept is
#   close to its random value, attention has settled on empty patches.
