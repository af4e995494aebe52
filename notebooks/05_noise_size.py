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
from ipslib.study import per_doubling, slope_finding
from ipslib.study.arm_figures import arm_dots, attention_against_accuracy
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.contrast import found_in_words
from ipslib.study.figures import grouped_bars, learning_curves
from ipslib.study.gallery import example_row
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.statistics import rising_trend
from ipslib.study.tables import show
from ipslib.study.wording import effect_in_words, points

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
runs = run_arms(study, arms, seeds)
study.save_table("runs", runs.frame)
Markdown(study.made_of(runs.records))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row.

# %%
same_scale = profile == "paper" and not overrides
theirs = None
if same_scale:
    asked = {names[count]: {"n_noise": count} for count in noise_counts}
    theirs = published_arms(published, asked)
table = arm_table(runs.frame, published=theirs, same_scale=same_scale)
study.save_table("summary", table)
show(headline(table))

# %% [markdown]
# ## The figure

# %%
study.save_figure("accuracy", arm_dots(runs.frame, published=theirs, same_scale=same_scale))

# %% [markdown]
# Whether the runs had settled when they ended:

# %%
study.save_figure("curves", learning_curves(runs.records, by="n_noise"))

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(runs.frame))

# %% [markdown]
# ## Does accuracy fall with noise?
# Over all runs: Spearman's rho between noise and loss of accuracy (majority), with a one-sided
# permutation test, and the accuracy lost per doubling of the noise with its 95 % interval. The
# least p that the test can give with so few runs stands beside it.

# %%
majority = runs.frame[runs.frame["task"] == "majority"]
published_majority = published[published["task"] == "majority"]
rows = {"here": majority, "published": published_majority}
trends = pd.DataFrame(
    {"runs": name} | rising_trend(each["n_noise"], 1 - each["accuracy"])._asdict()
    for name, each in rows.items()
    if len(each) > 2 and each["n_noise"].nunique() > 1
).rename(columns={"per_doubling": "lost_per_doubling"})
study.save_table("trends", trends)
show(trends)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
within = ["canvas", "digit_size", "n_train"]
ours, theirs = (per_doubling(each, "n_noise", within=within) for each in (runs.frame, published))
finding = slope_finding("per doubling of the noise objects", ours, theirs, direction=0)
levels = 100 * published_majority["accuracy"]
note = f"All published runs reach {levels.min():.1f} to {levels.max():.1f} %, few or many."
study.finding(finding and finding._replace(note=note), figure="accuracy")

# %% [markdown]
# ## Reading

# %%
means = majority.groupby("n_noise")["accuracy"].mean()
few, many = means.index.min(), means.index.max()
their_means = published_majority.groupby("n_noise")["accuracy"].mean()
their_few, their_many = their_means.index.min(), their_means.index.max()
effects = "; ".join(f"*{arm}* {effect_in_words(table, arm)}" for arm in list(arms)[1:])
random_part = majority.groupby("n_noise")["roi_recall"].mean()
p_of = trends.set_index("runs")["p"]


def told(runs: str) -> str:
    """Whether accuracy falls with noise, as far as the trend test can say."""
    if runs not in p_of:
        return "too few runs for a test"
    fall = "it falls" if p_of[runs] < 0.05 else "no fall that the test can tell"
    return f"{fall}, p = {p_of[runs]:.2g}"


# %%
Markdown(f"""
1. From {few} to {many} noise objects accuracy on majority goes from {100 * means[few]:.0f} to
   {100 * means[many]:.0f} % ({points(means[many] - means[few])}). Published, from {their_few} to
   {their_many}: {100 * their_means[their_few]:.0f} to {100 * their_means[their_many]:.0f} %
   ({points(their_means[their_many] - their_means[their_few])}).
2. Does accuracy fall with noise? Here: {told("here")}. Published: {told("published")}.
3. Against the reference of {noise_counts[0]}: {effects}.
4. Finding, not reading: {found_in_words(majority)}. Digits kept on average:
   {", ".join(f"{100 * recall:.0f} % among {n}" for n, recall in random_part.items())}.
""")

# %% [markdown]
# ## Limits
# - Digits are drawn last: more noise hides no digit, it only competes for attention and for the
#   kept patches.
# - The pool of noise patterns grows with their number as published; in `quick` it has one size.
# - More noise also leaves fewer blank patches. Where noise is scarce, attention can settle on blank
#   ones, which lowers accuracy for a reason that published canvases do not have.
# - Intervals are not corrected for the number of arms.
