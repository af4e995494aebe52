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
# **What would refute it**: accuracy with the losses no higher than without; heads that attend as
# alike as before.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
attention_arms = [[1, 0], [0, 3], [1, 3]]  # weights [semantic, diversity on attention]
output_arms = [[1, 3]]  # weights [semantic, diversity on the heads' outputs], as published
digit_sizes = [28]  # px; noise objects have the same size
noise_counts = [4]  # noise objects on a canvas, one number a digit size
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.metrics import measure_heads
from ipslib.study import arm_finding, published_row
from ipslib.study.arm_figures import arm_dots, attention_against_accuracy
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.figures import grouped_bars
from ipslib.study.gallery import example_row
from ipslib.study.published import published_accuracy
from ipslib.study.published_configs import published_runs
from ipslib.study.remeasure import trained_runs
from ipslib.study.session import Study
from ipslib.study.tables import show
from ipslib.study.wording import effect_in_words, points
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
runs = {}
for setting in settings:
    own_arms = {arm: fields | setting for arm, fields in arms.items()}
    runs[setting["digit_size"]] = run_arms(study, own_arms, seeds)
records = [record for each in runs.values() for record in each.records]
frame = pd.concat([each.frame for each in runs.values()], ignore_index=True)
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
published_ids = {run.config.id for run in published_runs()}
same_scale = all(study.config(**setting).id in published_ids for setting in settings)
counterparts = {reference: {"diversity_weight": 0}}
for semantic, diversity in output_arms:
    if semantic == 1 and diversity in (1, 2, 3):
        counterparts[arm_name(semantic, diversity, "outputs")] = {"diversity_weight": diversity}
beside, tables = {}, {}
for size, each in runs.items():
    of_size = published[published["digit_size"] == size]
    beside[size] = published_arms(of_size, counterparts) if len(of_size) else None
    tables[size] = arm_table(each.frame, published=beside[size], same_scale=same_scale)
    display(show(headline(tables[size]), caption=f"digits of {size} px"))
table = pd.concat(tables, names=["digit_size"]).reset_index("digit_size")
study.save_table("runs", frame)
study.save_table("summary", table)

# %% [markdown]
# ## The figure
# Every task, an arm a row.

# %%
for size, each in runs.items():
    at_scale = {"published": beside[size], "same_scale": True} if same_scale else {}
    study.save_figure(f"accuracy_{size}px", arm_dots(each.frame, **at_scale))

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
heads = heads[["arm", "digit_size", "seed", "id", "semantic_weight", "entropy", "accuracy"]]
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
for size, each in runs.items():
    study.save_figure(f"attention_{size}px", attention_against_accuracy(each.frame))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
row = published_row(table)
size = digit_sizes[0] if row is None else row["digit_size"]
compared = f"{{arm}}, against {reference} ({{digit_size}} px)"
study.finding(arm_finding(row, compared), figure=f"accuracy_{size}px")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout; points are those of a percentage.

# %%
others, lines, learned = [arm for arm in arms if arm != reference], [], {}
for size, each in tables.items():
    rows = each[each["task"] == "majority"].set_index("arm")
    level, chance = 100 * rows["mean"][reference], 100 * rows["chance"][reference]
    learned[size] = level > 2 * chance
    has_intervals = rows["effect_low"].notna().any()
    low, high = (rows[f"effect_{end}" if has_intervals else "effect"] for end in ("low", "high"))
    helped, harmed = ([arm for arm in others if told[arm] > 0] for told in (low, -high))
    lines.append(
        f"Digits of {size} px: {level:.0f} % without extra loss (chance {chance:.0f} %)"
        f"{'' if learned[size] else '; it has not learned, and effects say nothing'}. "
        f"{'The whole interval of the effect' if has_intervals else 'The effect'} is above zero, "
        f"as the claim needs, for {len(helped)} of {len(others)} arms and below zero for "
        f"{len(harmed)}:"
    )
    lines[-1] += "".join(f"\n   - *{arm}* {effect_in_words(each, arm)}" for arm in others)
    kept, times_random = 100 * rows["roi_recall"], rows["times_random"]
    fewest = kept.idxmin()
    lines.append(
        f"Digits of {size} px kept: {kept[reference]:.0f} % without extra loss. Fewest with "
        f"*{fewest}*: {kept[fewest]:.0f} %, {times_random[fewest]:.1f} times as many as random "
        f"patches; {'it fails to find' if times_random[fewest] < 2 else 'it still finds'} them."
    )

# %% [markdown]
# Alone and together; then the largest weight that was run both ways, on attention and on outputs.

# %%
for size, each in tables.items():
    effect = each[each["task"] == "majority"].set_index("arm")["effect"]
    for semantic, diversity in attention_arms:
        parts = [[semantic, 0], [0, diversity]]
        if semantic and diversity and all(part in attention_arms for part in parts):
            first, second = (arm_name(*part, "attention") for part in parts)
            together = effect[arm_name(semantic, diversity, "attention")]
            lines.append(
                f"Digits of {size} px: *{first}* gives {points(effect[first])}, *{second}* "
                f"{points(effect[second])}; together they give {points(together)}, where their sum "
                f"would be {points(effect[first] + effect[second])}."
            )

# %%
both_ways = [weights for weights in output_arms if weights in attention_arms and weights[1]]
for size, each in tables.items() if both_ways else []:
    semantic, diversity = max(both_ways, key=lambda weights: weights[1])
    source, as_published = (arm_name(semantic, diversity, c) for c in ("attention", "outputs"))
    level = each[each["task"] == "majority"].set_index("arm")["mean"]
    change = points(level[as_published] - level[source])
    lines.append(f"Digits of {size} px: *{as_published}* is {change} from *{source}*.")
    if (size, source) in means.index:
        without = [weights for weights in attention_arms if weights == [semantic, 0]]
        base = arm_name(semantic, 0, "") if without else reference
        cosine = means.loc[size]["attention_alike"][[base, source, as_published]]
        moved = cosine[base] - cosine[[source, as_published]]
        if moved[source] < 0.05:
            verdict = "neither makes heads attend apart here"
        elif moved[as_published] > moved[source] / 2:
            verdict = "comparing outputs does most of what comparing attention does"
        else:
            verdict = "comparing outputs is no substitute for comparing attention"
        outputs, entropy = means.loc[size]["outputs_alike"], 100 * means.loc[size]["entropy"]
        lines[-1] += (
            f" The cosine of two heads' attention is {cosine[base]:.2f} in *{base}*, "
            f"{cosine[source]:.2f} with diversity on attention and {cosine[as_published]:.2f} with "
            f"diversity on outputs, whose own cosine goes from {outputs[base]:.2f} to "
            f"{outputs[as_published]:.2f}: {verdict}. Attention's entropy is "
            f"{entropy[source]:.0f} % of uniform with diversity on attention, "
            f"{entropy[as_published]:.0f} % on outputs."
        )

# %%
with_losses = theirs.dropna(subset="effect")
below = int((with_losses["effect"] < 0).sum())
untrained = int((with_losses["train_accuracy"] < 0.2).sum())
ours = table[(table["task"] == "majority") & table["arm"].isin(counterparts)]
ours = ours[ours["digit_size"].map(learned)].dropna(subset="effect")
ours_below = int((ours["effect"] < 0).sum())
agrees = (below > len(with_losses) / 2) == (ours_below > len(ours) / 2)
lines.append(
    f"Published, at its own scale: {below} of {len(with_losses)} runs with both losses stand below "
    f"the run with neither, {points(with_losses['effect'].min(), with_losses['effect'].max())}; "
    f"{untrained} of them stayed under twice chance on their own training images: a failure to "
    "learn, not to generalise."
)
if len(ours):
    lines[-1] += (
        f" With the losses as published ours stand below the reference in {ours_below} of "
        f"{len(ours)} arms: the direction {'agrees' if agrees else 'differs'}."
    )
n_runs = len(seeds)
lines.append(
    f"{n_runs} seeds: an interval that includes zero does not show that a loss does nothing."
    if n_runs > 1
    else "One seed: effects have no interval, and what is luck cannot be told."
)
Markdown("\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1)))

# %% [markdown]
# ## Limits
# - The published runs are one a cell, and their logs print that the losses were on but not the
#   weight: it is taken from the run's name.
# - Attention is compared over the kept patches, as in training. Heads share the kept set, which is
#   chosen by their mean attention: diversity can move heads within it, and the set only in time.
# - Weights are compared as they are. The two forms of diversity pull with different strength: the
#   outputs' cosine can fall below zero, the attention's cannot.
# - Weights lie between 0 and 3, as published. A weight far below 1 was not tried.
# - In `quick` canvas, network and memory are far smaller than published, with fewer heads and
#   fewer patches to share among them, so that heads which must differ see less each.
