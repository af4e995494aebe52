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
# **What would refute it**: accuracy that does not rise as patches shrink, or that does so only
# because M patches of another size are another share of the canvas. So every size is also run with
# the kept area M P² held fixed.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
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
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
arm_seeds = {"48 px, M 10": [0]}  # other seeds for some arms
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import arm_finding
from ipslib.study.arm_figures import attention_against_accuracy
from ipslib.study.arms import headline
from ipslib.study.backbones import cost_table
from ipslib.study.comparisons import comparison_tables, published_counterparts, run_comparisons
from ipslib.study.contrast import found_in_words
from ipslib.study.patch_scale import (
    against_patch_ratio,
    patch_table,
    patches_over_digit,
    trends_in_words,
    trends_with_smaller_patches,
)
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.tables import show

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
study.save_figure("patches", patches_over_digit(data_sets, 0))

# %% [markdown]
# What each arm means. *Kept area* is M P² in px, *training pixels* (thousands) what one training
# step encodes with gradient: the batch times the kept area. It sets the memory of training.

# %%
meaning = patch_table(configs)
study.save_table("patches", meaning)
show(meaning)

# %% [markdown]
# ## The published runs
# At their own scale (majority). Runs that stopped early are left out below, and so is a run whose
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
same_scale = profile == "paper" and not overrides
on = ["canvas", "digit_size", "n_noise", "n_train", "patch_size", "memory_size"]
theirs = published_counterparts(study, comparisons, published, on=on) if same_scale else None
effects = comparison_tables(frame, published=theirs, same_scale=same_scale)
study.save_table("effects", effects)
for title, rows in effects.groupby("comparison", sort=False):
    display(show(headline(rows), caption=title))

# %% [markdown]
# ## The figure
# Lines are means over seeds with their 95 % interval, dots single runs. On the right the published
# runs, whose digits are larger and whose patches are the same share of them.

# %%
study.save_figure("ratio", against_patch_ratio(frame, published))

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
relative = costs.set_index("arm")[["training_pixels", "minutes"]]
factors = {
    title: relative.loc[list(arms)].max() / relative.loc[list(arms)].min()
    for title, arms in comparisons.items()
}
show(costs[["arm", "training_pixels", "mflop_per_patch", "minutes", "peak_mb", "device"]])

# %% [markdown]
# ## Does accuracy rise as patches shrink?
# Over all runs of a comparison, and over the published runs of each noise count. *Effect* is the
# accuracy (majority) gained per halving of the patch's side, by a straight line; *rho* is
# Spearman's, with a one-sided permutation test. *Smallest p* is the least that it can give. A
# straight line knows no best size in the middle; the figure shows one if there is.

# %%
noise = published["n_noise"].map("published, {:g} noise objects".format)
runs = pd.concat([frame, published.assign(comparison=noise)])
trends = trends_with_smaller_patches(runs)
study.save_table("trends", trends)
show(trends)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
is_theirs = trends["comparison"].str.startswith("published")
best = trends[is_theirs].nlargest(1, "runs")["effect"]  # the noise count of most runs
ours = next((row for _, row in trends[~is_theirs].iterrows()), None)
compared = "per halving of the patch's side, {comparison}"
finding = arm_finding(ours, compared, published=best.max(), direction=1)
study.finding(finding, figure="ratio")

# %% [markdown]
# ## Reading

# %%
majority = once[once["task"] == "majority"].groupby("arm", sort=False)
means, spread = 100 * majority["accuracy"].mean(), 100 * majority["accuracy"].agg(np.ptp).max()
found = 100 * majority["roi_recall"].mean()
times = found / (100 * majority["roi_recall_random"].mean())
theirs = published[published["task"] == "majority"].groupby(["patch_size", "n_noise"])["accuracy"]
levels = ", ".join(f"{m:.0f} % at {p} px with {n}" for (p, n), m in (100 * theirs.mean()).items())
dearest = "; ".join(
    f"*{title}* {factor['training_pixels']:.1f} times the pixels and {factor['minutes']:.1f} times "
    "the minutes"
    for title, factor in factors.items()
)

# %%
luck = (
    f"Seeds of one arm differ by up to {spread:.0f} points."
    if spread > 0
    else "One seed an arm: how much of this is luck cannot be told."
)
Markdown(f"""
1. Accuracy on majority (chance 10 %): {"; ".join(f"{a}: {m:.0f} %" for a, m in means.items())}.
   The best arm is {means.idxmax()}.
2. Gained per halving of the patch, in our runs: {trends_in_words(trends[~is_theirs])}.
3. In the published runs: {trends_in_words(trends[is_theirs])}. Their means by patch and noise
   objects are {levels}; runs of one setting, at most {theirs.size().max()}, differ by up to
   {100 * theirs.agg(np.ptp).max():.0f} points.
4. Kept patches touch {found.min():.0f} % ({found.idxmin()}) to {found.max():.0f} %
   ({found.idxmax()}) of the digits, {times.min():.1f} to {times.max():.1f} times what random ones
   would. By the share of digits that random patches would miss and these keep (half or more),
   {found_in_words(once[once["task"] == "majority"])}. What is not found cannot be read.
5. The dearest arm of a comparison against its cheapest: {dearest} of training.
6. {luck}
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
#   largest size nobody knows which it is. Published levels are of another scale than `quick`.
