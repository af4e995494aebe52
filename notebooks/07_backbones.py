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
# **Contrast, written before any run**: accuracy on majority of the first frozen encoder, with
# ImageNet weights where that was run, less that of the trained one, on the same seeds. *Supports*:
# below zero. *Contradicts*: above zero. *Equivalent to none*: within 5 points. Else *open*. Without
# any download the question is asked from below, with a frozen *random* encoder: that shows what
# training buys, and has no published counterpart.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
comparisons = {
    "base setting": {  # the first arm is the reference; an arm is what differs from the base run
        "ResNet-18, width 1/4": {},
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
seeds = [0, 1, 2]  # of training: initial weights, order of images, order of patches
arm_seeds = {}  # other seeds for some arms, such as {"one stage": [0]}
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.ticker import NullLocator

from ipslib.model.encoder import weights_file
from ipslib.study import (
    CHANCE_LINE,
    Study,
    arm_colours,
    arm_dots,
    arm_finding,
    arm_table,
    attention_against_accuracy,
    compare_arm,
    cost_table,
    draw_means,
    headline,
    log_ticks,
    obtain_weights,
    points,
    published_accuracy,
    published_beside,
    run_comparisons,
    show,
)

study = Study("07_backbones", profile, overrides=overrides)
study

# %% [markdown]
# ## The published runs
# At their own scale (majority; canvas 3000 x 3000 px). *Effect* is the difference to the ResNet-18
# with a random start at the same digit size and number of images, which every other category used.
# Epochs and noise counts differ between the rows, and some runs stopped early.

# %%
category = published_accuracy("Backbones", incomplete=True)
cells = {name: category[name].unique().tolist() for name in ("canvas", "digit_size", "n_train")}
usual = published_accuracy("O2I_datasize", **cells)
on = ["digit_size", "n_train", "task"]
reference = usual.groupby(on, as_index=False)["accuracy"].mean()
published = pd.concat([usual, category], ignore_index=True)
published = published.merge(reference.rename(columns={"accuracy": "reference"}), on=on)
effect = published["accuracy"] - published.pop("reference")
published["effect"] = effect.mask(published["weights"] == "none")
published = published.sort_values(on[:2], kind="stable", ignore_index=True)
study.save_table("published", published)
table = published[published["task"] == "majority"]
columns = [*on[:2], "n_noise", "encoder", "weights", "epochs_run", "complete"]
show(table[[*columns, "accuracy", "train_accuracy", "effect"]])

# %% [markdown]
# ## What can be run here
# An arm with ImageNet weights needs them here, or a network to download them; one whose runs have
# all been recorded needs neither.


# %%
def can_be_run(arm: str, fields: dict) -> bool:
    runs = [study.config(**fields, seed=seed) for seed in arm_seeds.get(arm, seeds)]
    if runs[0].model.weights == "none" or all(study.store.find(run) for run in runs):
        return True
    return pretrained and obtain_weights(runs[0].model)


wanted = {arm: fields for arms in comparisons.values() for arm, fields in arms.items()}
left_out = [arm for arm, fields in wanted.items() if not can_be_run(arm, fields)]
comparisons = {
    title: {arm: fields for arm, fields in arms.items() if arm not in left_out}
    for title, arms in comparisons.items()
}
comparisons = {title: arms for title, arms in comparisons.items() if arms}
files = [weights_file(wanted[arm]["encoder"], wanted[arm]["weights"]) for arm in left_out]
Markdown(f"""
Left out for want of ImageNet weights: {"; ".join(left_out) or "nothing"}. `pretrained = True`
downloads them where there is a network; without one, first bring
{" and ".join(sorted({file.url for file in files})) or "none"} to PyTorch's folder hub/checkpoints.
""")

# %% [markdown]
# ## The runs

# %%
records, frame = run_comparisons(study, comparisons, seeds, arm_seeds=arm_seeds)
by_comparison = frame.groupby("comparison", sort=False)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds; the first row is the reference, *effect*
# the mean difference to it. *V1*, *V2*: with these ImageNet weights; *ep*, *n*: epochs and noise
# objects where they are not the reference's. *Published* is given in `paper`, where a published run
# has the same setting. The other tasks are in the CSV file. Where training images are no better
# known than test images, an arm has not overfitted: it learned little in the epochs it had.

# %%
on = ["canvas", "digit_size", "n_noise", "n_train", "encoder", "weights"]
complete = published[published["complete"]]
beside = published_beside(frame, complete, on=on) if study.same_scale else None
effects = arm_table(frame, published=beside, same_scale=study.same_scale)
known = frame.groupby(["comparison", "arm", "task"])["train_accuracy"].mean()
effects = effects.merge(known.reset_index(), on=["comparison", "arm", "task"])
study.save_table("effects", effects)
for title, rows in effects.groupby("comparison", sort=False):
    known_here = rows.loc[rows["task"] == "majority", "train_accuracy"].to_numpy()
    display(show(headline(rows).assign(train_accuracy=known_here), caption=title))

# %% [markdown]
# ## The figure

# %%
for i, (_, rows) in enumerate(by_comparison):
    figure = arm_dots(rows, published=beside, same_scale=study.same_scale)
    study.save_figure(f"arms_{i}", figure)

# %% [markdown]
# ## What does a backbone cost?
# Parameters and operations are those of the encoder alone (a multiply-add is two operations).
# Minutes and peak memory of a run are from the records and hold for the device and the load that
# they were measured on. On a CPU memory is that of the whole process, libraries included.

# %%
costs = pd.concat(
    {title: cost_table(rows, records) for title, rows in by_comparison}, names=["comparison"]
)
costs = costs.reset_index("comparison").reset_index(drop=True)
study.save_table("costs", costs)
show(costs)

# %%
COSTS = {
    "mflop_per_patch": "operations of the encoder per patch (millions)",
    "trained": "trained parameters of the encoder",
}
majority = effects[effects["task"] == "majority"].merge(costs, on=["comparison", "arm"])

# %%
for i, (_, rows) in enumerate(majority.groupby("comparison", sort=False)):
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for ax, (cost, label) in zip(panels, COSTS.items(), strict=True):
        for i_arm, colour in enumerate(arm_colours(len(rows))):
            row = rows.iloc[[i_arm]]
            draw_means(ax, row[cost], row, color=colour, ms=7, label=row["arm"].item())
        ax.axhline(100 * rows["chance"].iloc[0], **CHANCE_LINE)
        ax.set(xscale="log", xlabel=label, ylim=(0, 102))
        ax.set_xlim(rows[cost].min() / 3, rows[cost].max() * 3)
        log_ticks(ax.xaxis)
        ax.xaxis.set_minor_locator(NullLocator())
    panels[0].set(ylabel="test accuracy (%)", title="majority")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    study.save_figure(f"cost_{i}", figure)

# %% [markdown]
# ## Does attention find the digits?
# Towards the upright ticks of random patches runs failed to find the digits; low on the right they
# found them and failed to read.

# %%
for i, (_, rows) in enumerate(by_comparison):
    study.save_figure(f"attention_{i}", attention_against_accuracy(rows))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
flags = frame.drop_duplicates(["comparison", "arm"])[["comparison", "arm", "frozen", "weights"]]
frozen = majority.merge(flags, on=["comparison", "arm"]).query("frozen")
fixed = table[table["complete"] & (table["encoder"] == "resnet50")]
rows = frozen.dropna(subset="effect").sort_values(
    "weights", key=lambda w: w == "none", kind="stable"
)
finding = None
for _, row in rows.head(1).iterrows():  # with ImageNet weights where that was run
    is_theirs = row["weights"] != "none"
    more = {"direction": -1, "published": fixed["effect"].mean() if is_theirs else np.nan}
    more["note"] = "" if is_theirs else "Frozen with random weights, which was not published."
    of_title = by_comparison.get_group(row["comparison"])
    finding = arm_finding("a frozen encoder reads worse", of_title, row["arm"], **more)
    display(show(compare_arm(of_title, row["arm"]), caption=row["comparison"]))
study.finding(finding, figure="arms_0")

# %% [markdown]
# ## Reading
# The frozen arms, on majority. An arm that reads even its own training images no better than three
# times chance has not overfitted but hardly learned.

# %%
shown = ["comparison", "arm", "effect", "effect_low", "effect_high", "roi_recall", "times_random"]
show(frozen[[*shown, "mean", "train_accuracy", "chance"]])

# %%
finished = table[table["complete"]]
begun = finished[(finished["encoder"] == "resnet18") & (finished["weights"] != "none")]
begun = begun.groupby("n_train")["effect"].mean()
slow = majority.loc[majority["train_accuracy"] < 3 * majority["chance"], "arm"]
runs = frame[frame["task"] == "majority"].drop_duplicates("id")
imagenet = frozen[frozen["weights"] != "none"]
Markdown(f"""
1. Frozen arms whose whole interval is below the trained reference:
   {(frozen["effect_high"] < 0).sum()} of {len(frozen)}; of those with ImageNet weights
   {(imagenet["effect_high"] < 0).sum()} of {len(imagenet)}. A frozen random encoder only shows
   how much there is to gain by training; the published comparison needs the weights.
2. {runs["took_off"].sum():.0f} of {len(runs)} runs took off. Hardly learned:
   {"; ".join(slow) or "none"}.
3. Published: the {len(fixed)} complete runs of frozen ResNet-50s stand
   {points(fixed["effect"].min(), fixed["effect"].max())} from the ResNet-18 that began at random,
   after {fixed["epochs_run"].max()} epochs against {finished["epochs_run"].max()}. To
   begin with ImageNet weights and train on stands at
   {" and ".join(f"{points(e)} with {n} images" for n, e in begun.items())} on average.
""")

# %% [markdown]
# ## Limits
# - A frozen encoder keeps its batch-norm statistics as well. A random one has none: it normalises
#   nothing, which is a further handicap beside its random weights.
# - The published rows differ in epochs, noise count and depth at once, one run each, so that no
#   effect of the weights alone can be read from them.
# - ImageNet weights expect coloured photographs of much larger objects; their first convolution is
#   replaced here and trained from a random start.
# - Outside `paper` every arm is given the same epochs and learning rate. What is deeper may need
#   more of the one or less of the other, so a low accuracy there is no verdict on depth.
# - There the encoder is a quarter as wide as published. Width, depth and freezing are changed
#   one at a time; nothing is said about changing two.
