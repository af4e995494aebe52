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
# # 07 - How much network does a patch need, and must it be trained?
#
# **Claim**: none in the paper's abstract (arXiv 2412.11237). Its results library sets a ResNet-18
# (first two stages, trained) against a ResNet-50 (all stages) of which only the first convolution
# and a final projection are trained, the rest frozen with ImageNet weights. The numbers suggest
# that training a small encoder on the task beats a large frozen one.
#
# **Published**: digits of 28 and 56 px, 1000 and 2000 images, one run a setting. That ResNet-18
# began with ImageNet weights too; the one of every other category began with random weights and is
# the reference here.
#
# **What would refute it**: a frozen encoder that comes near the trained one. Without any download
# the question is asked from below: a frozen *random* encoder shows what training it buys.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
comparisons = {
    "base setting": {  # the first arm is the reference; an arm is what differs from the base run
        "ResNet-18, width 1/4": {},
        "one stage": {"n_stages": 1},
        "random start, frozen": {"frozen": True},
        "ResNet-50 V1, frozen": {
            "encoder": "resnet50",
            "weights": "imagenet_v1",
            "frozen": True,
            "width": 1.0,
        },
        "ResNet-50 V2, frozen": {
            "encoder": "resnet50",
            "weights": "imagenet_v2",
            "frozen": True,
            "width": 1.0,
        },
    },
}
pretrained = False  # also the arms with ImageNet weights: a download, and long runs on a CPU
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
arm_seeds = {}  # other seeds for some arms, such as {"one stage": [0]}
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import pandas as pd
from IPython.display import Markdown, display

from ipslib.study import arm_finding
from ipslib.study.arm_figures import arm_dots, attention_against_accuracy
from ipslib.study.arms import headline
from ipslib.study.backbone_figures import accuracy_against_cost
from ipslib.study.backbones import cost_table, obtainable, published_backbones
from ipslib.study.comparisons import (
    comparison_tables,
    effects_in_words,
    published_counterparts,
    run_comparisons,
)
from ipslib.study.contrast import found_in_words
from ipslib.study.session import Study
from ipslib.study.tables import show
from ipslib.study.wording import points

study = Study("07_backbones", profile, overrides=overrides)
wanted = {"seeds": seeds, "arm_seeds": arm_seeds}
comparisons, left_out = obtainable(study, comparisons, **wanted, pretrained=pretrained)
study

# %% [markdown]
# ## The published runs
# At their own scale (majority; canvas 3000 x 3000 px). *Effect* is the difference to the ResNet-18
# with a random start at the same digit size and number of images. Epochs and noise counts differ
# between the rows, and some runs stopped early.

# %%
published = published_backbones()
columns = ["digit_size", "n_train", "n_noise", "backbone", "epochs_run", "complete"]
table = published[published["task"] == "majority"]
study.save_table("published", published)
show(table[[*columns, "accuracy", "train_accuracy", "effect"]])

# %% [markdown]
# ## The runs

# %%
records, frame = run_comparisons(study, comparisons, **wanted)
study.save_table("runs", frame)
Markdown(f"{study.made_of(records)} {left_out}")

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds; the first row is the reference, *effect*
# the mean difference to it. *V1*, *V2*: with these ImageNet weights; *ep*, *n*: epochs and noise
# objects where they are not the reference's. *Published* is given in `paper`, where a published run
# has the same setting. The other tasks are in the CSV file. Where training images are no better
# known than test images, an arm has not overfitted: it learned little in the epochs it had.

# %%
same_scale = profile == "paper" and not overrides
on = ["canvas", "digit_size", "n_noise", "n_train", "encoder", "weights"]
complete = published[published["complete"]]
theirs = published_counterparts(study, comparisons, complete, on=on) if same_scale else None
effects = comparison_tables(frame, published=theirs, same_scale=same_scale)
known = frame.groupby(["comparison", "arm", "task"], sort=False)["train_accuracy"].mean()
effects = effects.merge(known.reset_index(), on=["comparison", "arm", "task"])
study.save_table("effects", effects)
for title, rows in effects.groupby("comparison", sort=False):
    known_here = rows.loc[rows["task"] == "majority", "train_accuracy"].to_numpy()
    display(show(headline(rows).assign(train_accuracy=known_here), caption=title))

# %% [markdown]
# ## The figure

# %%
by_comparison = {"by": "comparison", "sort": False}
for i, (title, rows) in enumerate(frame.groupby(**by_comparison)):
    theirs_here = theirs[theirs["comparison"] == title] if same_scale else None
    figure = arm_dots(rows, published=theirs_here, same_scale=same_scale)
    study.save_figure(f"arms_{i}", figure)

# %% [markdown]
# ## What does a backbone cost?
# Parameters and operations are those of the encoder alone (a multiply-add is two operations).
# Minutes and peak memory of a run are from the records and hold for the device and the load that
# they were measured on. On a CPU memory is that of the whole process, libraries included.

# %%
costs = {title: cost_table(rows, records) for title, rows in frame.groupby(**by_comparison)}
study.save_table("costs", pd.concat(costs, names=["comparison"]).reset_index("comparison"))
for i, (title, rows) in enumerate(effects.groupby(**by_comparison)):
    display(show(costs[title], caption=title))
    study.save_figure(f"cost_{i}", accuracy_against_cost(rows, costs[title]))

# %% [markdown]
# ## Does attention find the digits?
# Towards the upright ticks of random patches runs failed to find the digits; low on the right they
# found them and failed to read.

# %%
for i, (_, rows) in enumerate(frame.groupby(**by_comparison)):
    study.save_figure(f"attention_{i}", attention_against_accuracy(rows))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
flags = frame.drop_duplicates(["comparison", "arm"])[["comparison", "arm", "frozen", "weights"]]
majority = effects[effects["task"] == "majority"].merge(flags, on=["comparison", "arm"])
frozen = majority[majority["frozen"]]
finished = table[table["complete"]]
fixed = finished[finished["encoder"] == "resnet50"]
rows = frozen.dropna(subset="effect").sort_values(
    "weights", key=lambda w: w == "none", kind="stable"
)
row = next((each for _, each in rows.iterrows()), None)  # with ImageNet weights where that was run
note = "The published encoder was frozen with ImageNet weights"
if row is not None and row["weights"] == "none":
    note += ", ours with random ones: only direction compares"
more = {"published": fixed["effect"].mean(), "note": f"{note}."}
study.finding(arm_finding(row, "{arm}, against the trained encoder", **more), figure="arms_0")

# %% [markdown]
# ## Reading

# %%
told = "; ".join(
    f"**{row['arm']}** touches {100 * row['roi_recall']:.0f} % of the digits with the patches that "
    f"it keeps, {row['times_random']:.1f} times what random ones would, and is right about the "
    f"majority in {100 * row['mean']:.0f} %"
    for _, row in frozen.iterrows()
)

# %%
begun = finished[(finished["encoder"] == "resnet18") & (finished["weights"] != "none")]
begun = begun.groupby("n_train")["effect"].mean()
slow = "; ".join(majority.loc[majority["train_accuracy"] < 3 * majority["chance"], "arm"]) or "none"
n_below, n_sure = int((frozen["effect"] < 0).sum()), int((frozen["effect_high"] < 0).sum())
imagenet = frozen[frozen["weights"] != "none"]
verdict = (
    "No encoder with frozen ImageNet weights was run, so the published comparison itself is "
    "not tested; what a random one shows is how much there is to gain by training."
)
if len(imagenet):
    agrees = (imagenet["effect"] < 0).all()
    verdict = f"Frozen ImageNet weights are {'behind' if agrees else 'not always behind'} here too."
Markdown(f"""
1. Majority (chance 10 %; runs an arm: {majority["n"].max()}). {effects_in_words(effects)}.
2. Frozen arms below the trained reference: {n_below} of {len(frozen)}, {n_sure} of them with an
   interval that leaves out zero. {told or "None was run"}. Arms that read even their own training
   images no better than three times chance, and so have not overfitted but hardly learned: {slow}.
   Of all runs, {found_in_words(frame[frame["task"] == "majority"])}.
3. Published: the {len(fixed)} complete runs of frozen ResNet-50s stand
   {points(fixed["effect"].min())} to {points(fixed["effect"].max())} from the ResNet-18 that began
   at random, after {fixed["epochs_run"].max()} epochs against
   {finished["epochs_run"].max()}. To begin with ImageNet weights and train on stands at
   {" and ".join(f"{points(e)} with {n} images" for n, e in begun.items())} on average.
4. {verdict}
""")

# %% [markdown]
# ## Limits
# - A frozen encoder keeps its batch-norm statistics as well. A random one has none: it normalises
#   nothing, which is a further handicap beside its random weights.
# - The published rows differ in epochs, noise count and depth at once, one run each, so that no
#   effect of the weights alone can be read from them.
# - ImageNet weights expect coloured photographs of much larger objects; their first convolution is
#   replaced here and trained from a random start.
# - Every arm of `quick` is given the same epochs and learning rate. What is deeper may need more of
#   the one or less of the other, so a low accuracy there is no verdict on depth.
# - In `quick` the encoder is a quarter as wide as published. Width, depth and freezing are changed
#   one at a time; nothing is said about changing two.
