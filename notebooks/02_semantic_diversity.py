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
# # 02 - What do the semantic and the diversity loss buy?
#
# **Claim** (ACMIL, arXiv 2311.07125, carried over to patch selection by arXiv 2412.11237):
# attention that settles on few patches overfits. It generalises better when every attention head
# must solve the tasks by itself (semantic loss) and when heads must differ (diversity loss).
#
# **Published**: six runs with both losses, weights of diversity 1, 2 and 3, digits of 28 and
# 56 px on canvases of 3000 x 3000 px, one run a cell. Neither loss was run alone. The diversity
# loss compared the heads' *outputs*; its source compares their *attention*.
#
# **Contrast, written before any run**: accuracy on majority with both losses as published
# (diversity on outputs; of several weights and digit sizes those of the largest published effect)
# less that with neither, on the same seeds. *Supports*: above zero. *Contradicts*: below zero.
# *Equivalent to none*: within 5 points. Else *open*. The published effect is below zero, against
# the claim.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
attention_arms = []  # weights [semantic, diversity on attention]
output_arms = [[1, 3]]  # weights [semantic, diversity on the heads' outputs], as published
digit_sizes = [28]  # px; noise objects have the same size
noise_counts = [4]  # noise objects on a canvas, one number a digit size
seeds = [0, 1, 2]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.metrics import measure_heads
from ipslib.study import (
    Study,
    arm_dots,
    arm_finding,
    arm_table,
    attention_against_accuracy,
    compare_arm,
    effects_over_seeds,
    example_row,
    grouped_bars,
    headline,
    published_accuracy,
    published_beside,
    published_row,
    run_comparisons,
    show,
    trained_runs,
)
from ipslib.training import predict

study = Study("02_semantic_diversity", profile, overrides=overrides)
study

# %% [markdown]
# ## The data
# One test image of each digit size, digits outlined; everything else is noise.

# %%
settings = study.digit_settings(digit_sizes, noise_counts)
examples = [MegapixelMNIST(study.config(**setting).data, "test") for setting in settings]
titles = [f"{e.config.digit_size} px, O2I {100 * e.config.o2i_ratio:.3g} %" for e in examples]
study.save_figure("data", example_row(examples, titles, 0))

# %% [markdown]
# ## The runs
# The reference has neither loss. An arm's name says what is added to the task loss: *semantic*,
# and *diversity* with its weight and with what it compares. At weight 0 a loss is not there.


# %%
def arm_name(semantic, diversity, compared):
    parts = ["semantic" if semantic == 1 else f"semantic {semantic:g}"] * (semantic > 0)
    parts += [f"diversity {diversity:g} on {compared}"] * (diversity > 0)
    return " + ".join(parts)


reference = "no extra loss"
arms = {reference: {"semantic_weight": 0, "diversity_weight": 0}}
for compared, weights in {"attention": attention_arms, "outputs": output_arms}.items():
    for semantic, diversity in weights:
        fields = {"semantic_weight": semantic, "diversity_weight": diversity}
        fields |= {"diversity_on": compared} if diversity else {}
        arms[arm_name(semantic, diversity, compared)] = fields

# %%
comparisons = {
    f"{setting['digit_size']} px": {arm: fields | setting for arm, fields in arms.items()}
    for setting in settings
}
records, frame = run_comparisons(study, comparisons, seeds)
by_size = frame.groupby("comparison", sort=False)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## What was published
# The published runs at their own scale: canvas 3000 x 3000 px, 1000 training images, one run a
# bar. Weight 0 is the run of notebook 01 with neither loss; the others have both.

# %%
published = pd.concat(
    [
        published_accuracy("Semantic_Diversity_Regularisation"),
        published_accuracy("O2I_datasize", canvas=3000, n_train=1000, digit_size=[28, 56]),
    ]
)
theirs = published[published["task"] == "majority"].sort_values(["digit_size", "diversity_weight"])
without = theirs["digit_size"].map(theirs.groupby("digit_size")["accuracy"].first())
theirs = theirs.assign(effect=(theirs["accuracy"] - without).where(theirs["diversity_weight"] > 0))
study.save_table("published", published)
display(show(theirs[["digit_size", "diversity_weight", "accuracy", "train_accuracy", "effect"]]))
study.save_figure("published", grouped_bars(published, bars="diversity_weight"))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds. *Effect* is the mean difference to the
# first row, the reference, on the same seeds. *Published effect* is that of the same digit size in
# pixels, on the published canvas; levels are compared only where the scale is the same.

# %%
plain = (frame["semantic_weight"] == 0) & (frame["diversity_weight"] == 0)
both = (frame["semantic_weight"] == 1) & (frame["diversity_on"] == "outputs")
as_published = frame[plain | both]
beside = published_beside(as_published, published, on=["digit_size", "diversity_weight"])
table = arm_table(frame, published=beside, same_scale=study.same_scale)
study.save_table("summary", table)
for title, rows in table.groupby("comparison", sort=False):
    display(show(headline(rows), caption=f"digits of {title}"))

# %% [markdown]
# ## The figure
# Every task, an arm a row.

# %%
shown = beside if study.same_scale else None
for title, rows in by_size:
    figure = arm_dots(rows, published=shown, same_scale=study.same_scale)
    study.save_figure(f"accuracy_{title.replace(' ', '')}", figure)

# %% [markdown]
# ## Do heads differ?
# What the losses are made to change, measured on the test images with the trained networks:
#
# - *attention alike*, *outputs alike*: the cosine of two heads' attention over the kept patches,
#   and of what they read there, mean over pairs of heads, tasks and images. 1 is the same; of
#   attention the least is 0 (no patch in common), of the outputs of H heads −1/(H − 1).
# - *entropy* of attention: 100 % is uniform, and what is uniform is alike.
# - *one head alone*: accuracy on majority of a single head, mean over heads. It goes through a map
#   that only the semantic loss trains, so without that loss it is left blank.

# %%
measured = {
    run.record["id"]: measure_heads(predict(run.network, run.test_set, run.batch_size))
    for run in trained_runs(study.store, records)
}
heads = frame[frame["task"] == "majority"].reset_index(drop=True)
heads = heads[heads["id"].isin(measured)]
losses = ["semantic_weight", "diversity_weight", "diversity_on"]
heads = heads[["arm", "digit_size", "seed", "id", *losses, "entropy", "accuracy"]]
found = [measured[run_id] for run_id in heads["id"]]
heads["attention_alike"] = [each.attention_alike for each in found]
heads["outputs_alike"] = [each.outputs_alike for each in found]
alone = 100 * pd.Series([each.alone["majority"] for each in found], heads.index, dtype=float)
heads["one head alone (%)"] = alone.where(heads["semantic_weight"] > 0)
study.save_table("heads", heads)
shown = ["attention_alike", "outputs_alike", "entropy", "one head alone (%)", "accuracy"]
means = heads.groupby(["digit_size", "arm"], sort=False)[shown].mean()
n_missing = len(records) - len(measured)
show(means.reset_index(), caption=f"{n_missing} runs came without weights" if n_missing else "")

# %%
least = {"attention_alike": 0, "outputs_alike": -1 / (study.base.model.n_heads - 1)}
figure, panels = plt.subplots(1, 2, figsize=(9.5, 1.3 + 0.36 * len(arms)), sharey=True)
dots = {"y": "arm", "hue": "digit_size", "palette": "colorblind", "size": 6, "jitter": False}
for ax, (measure, lowest) in zip(panels, least.items(), strict=True):
    sns.stripplot(heads, x=measure, ax=ax, alpha=0.8, legend=len(digit_sizes) > 1, **dots)
    for bound in (lowest, 1):
        ax.axvline(bound, color="#6b6b6b", linestyle=":", linewidth=1.1)
    ax.set(xlabel=f"{measure.replace('_', ' ')} (cosine)", ylabel="", xlim=(lowest - 0.05, 1.05))
    ax.grid(axis="x")
    if ax.legend_:
        ax.legend_.set(title="digit size (px)")
study.save_figure("heads", figure)

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Runs on the left kept few digits; low on the right, they kept them and did not read
# them.

# %%
for title, rows in by_size:
    figure = attention_against_accuracy(rows)
    study.save_figure(f"attention_{title.replace(' ', '')}", figure)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
row, finding, size = published_row(table), None, f"{digit_sizes[0]} px"
if row is not None:
    size, more = row["comparison"], {"direction": 1, "published": row["published_effect"]}
    of_size = by_size.get_group(size)
    finding = arm_finding("the losses raise accuracy", of_size, row["arm"], **more)
    display(show(compare_arm(of_size, row["arm"]), caption=f"digits of {size}"))
study.finding(finding, figure=f"accuracy_{size.replace(' ', '')}")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. *Above* and *below zero*: of how many arms the whole interval of
# the effect is; the claim needs them above. Of runs that did not take off, effects say nothing.

# %%
majority = table[table["task"] == "majority"]
others = majority[majority["arm"] != reference]
fewest = majority.loc[majority.groupby("comparison")["roi_recall"].idxmin()]
fewest = fewest.set_index("comparison")
reading = majority[majority["arm"] == reference].set_index("comparison")
reading = reading[["mean", "took_off", "chance"]]
reading["arms"] = others.groupby("comparison").size()
reading["above zero"] = (others["effect_low"] > 0).groupby(others["comparison"]).sum()
reading["below zero"] = (others["effect_high"] < 0).groupby(others["comparison"]).sum()
reading["fewest digits kept with"] = fewest["arm"]
reading[["roi_recall", "times_random"]] = fewest[["roi_recall", "times_random"]]
show(reading.rename_axis("digits").reset_index(), caption="without extra loss, and the arms")

# %% [markdown]
# Alone and together, where all three were run: what both losses do beyond the sum of what each does
# alone, one value a seed.

# %%
parts = []
for semantic, diversity in attention_arms:
    alone = [[semantic, 0], [0, diversity]]
    if semantic and diversity and all(weights in attention_arms for weights in alone):
        first, second = (arm_name(*weights, "attention") for weights in alone)
        both, runs = arm_name(semantic, diversity, "attention"), frame[frame["task"] == "majority"]
        by_arm = runs.pivot(index=["comparison", "seed"], columns="arm", values="accuracy")
        beyond = by_arm[both] - by_arm[first] - by_arm[second] + by_arm[reference]
        parts.append(beyond.rename("accuracy").reset_index().assign(arm=both))
beyond = pd.concat(parts) if parts else pd.DataFrame(columns=["comparison", "arm", "accuracy"])
beyond = effects_over_seeds(beyond, by=["comparison", "arm"])
show(beyond.drop(columns=["sd", "test", "p_none"]), caption="both, beyond the sum")

# %% [markdown]
# What the heads do, by what the diversity loss compares; mean over weights, digit sizes and seeds.
# If comparing outputs stood in for comparing attention, both would lower *attention alike* alike.

# %%
compared = heads["diversity_on"].where(heads["diversity_weight"] > 0, "no diversity loss")
measures = ["attention_alike", "outputs_alike", "entropy", "accuracy"]
show(heads.groupby(compared.rename("compared"))[measures].mean().reset_index())

# %%
with_losses = theirs.dropna(subset="effect")
untrained = with_losses["train_accuracy"] < 0.2
ours = others[others["arm"].isin(as_published["arm"])]
Markdown(f"""
1. Published, at its own scale: {(with_losses["effect"] < 0).sum()} of {len(with_losses)} runs with
   both losses stand below the run with neither. {untrained.sum()} of them stayed under twice chance
   on their own training images: a failure to learn, not to generalise.
2. With the losses as published the whole interval of the effect is above zero in
   {(ours["effect_low"] > 0).sum()} of {len(ours)} arms, below in {(ours["effect_high"] < 0).sum()}.
3. Runs an arm: {majority["n"].max()}. An interval that includes zero does not show that a loss does
   nothing; fewer than three runs have none, and what is luck cannot be told.
""")

# %% [markdown]
# ## Limits
# - The published runs are one a cell, and their logs print that the losses were on but not the
#   weight: it is taken from the run's name.
# - Attention is compared over the kept patches, as in training. Heads share the kept set, which is
#   chosen by their mean attention: diversity can move heads within it, and the set only in time.
# - Weights are compared as they are. The two forms of diversity pull with different strength: the
#   outputs' cosine can fall below zero, the attention's cannot.
# - Weights lie between 0 and 3, as published. A weight far below 1 was not tried.
# - Runs of `quick` have what notebook 17 found to let every one take off; published runs, and those
#   of `overnight`, have not.
# - Outside `paper` canvas, network and memory are far smaller than published, with fewer heads and
#   fewer patches to share among them, so that heads which must differ see less each.
