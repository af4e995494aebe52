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
# # 03 - What does masking the best patches cost, and how much of that is a quirk?
#
# **Claim** (ACMIL, arXiv 2311.07125, carried over to patch selection by arXiv 2412.11237):
# attention that settles on few patches overfits; when the K best patches are dropped at random
# while training, others are learned from, and the network generalises better.
#
# **Published**: K of 20, 30 and 40 at p = 0.2 with 1000 training images, p from 0.1 to 0.8 with
# 5000, one run each, on canvases of 1500 x 1500 px. Accuracy falls steadily with p.
#
# **The quirk**: masking is a regulariser of *training*. The published code masked in evaluation
# too, and in every iteration of the selection, so that a patch which is always among the best has
# to survive a drop each time.
#
# **Contrast, written before any run**: accuracy on majority of networks masked in training alone,
# by the masking with the largest published effect, less that of networks never masked, on the same
# seeds; evaluation masks nothing. *Supports*: above zero. *Contradicts*: below zero. *Equivalent to
# none*: within 5 points. Else *open*. Published is masking in both phases: below zero, against the
# claim. The quirk explains that if the same networks, asked under masks too, fall below themselves.

# %% tags=["parameters"]
profile = "overnight"  # base settings: params/<profile>/base.yaml; the rest is set below
train_sizes = [1500]  # images; each has a reference of its own
epochs = [32]  # one number a training size
score_arms = [[[4, 0.2]]]  # [K, p], a list a training size; as published
logit_arms = [[]]  # [K, p]: exactly K x p of the K best logits, as in the source (ACMIL)
seeds = [0, 1, 2, 3, 4]  # of training: initial weights, order of images, order of patches
overrides = {"n_noise": 3}  # any other field of RunConfig, for every run, such as {"lr": 0.0005}

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib.lines import Line2D

from ipslib.config import ARITHMETICS, ModelConfig, arithmetic_of
from ipslib.datasets.megapixel_mnist.config import TASKS, MegapixelMNISTConfig, chance_level
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.paths import project_root
from ipslib.runs.records import RecordStore
from ipslib.study import (
    CHANCE_LINE,
    DIAMOND,
    GREY,
    PUBLISHED,
    REFERENCE,
    Study,
    arm_dots,
    arm_finding,
    arm_table,
    attention_against_accuracy,
    compare_arm,
    effects_over_seeds,
    evaluate_again,
    example_row,
    grouped_bars,
    headline,
    level_colours,
    load_published,
    long_form,
    paired_differences,
    points,
    published_accuracy,
    published_beside,
    published_curve,
    published_row,
    published_runs,
    row_legend,
    run_comparisons,
    show,
    t_interval,
)

# %%
study = Study("03_attention_masking", profile, overrides=overrides)
study

# %% [markdown]
# ## The data
# One test image, digits outlined; everything else is noise.

# %%
data = study.config(n_train=train_sizes[0], epochs=epochs[0]).data
title = f"{data.digit_size} px, O2I {100 * data.o2i_ratio:.3g} %"
study.save_figure("data", example_row([MegapixelMNIST(data, "test")], [title], 0))

# %% [markdown]
# ## What was published
# At its own scale: M = 100 of N = 900 patches, a run a bar. The reference with 5000 images
# (p = 0) is filed under O2I_datasize. What is odd about these runs stands below them.

# %%
plain = published_accuracy("O2I_datasize", canvas=1500, digit_size=28)
published = pd.concat([published_accuracy("Attention_Masking"), plain], ignore_index=True)
theirs = published[published["task"] == "majority"]
theirs = theirs.sort_values(["n_train", "mask_p", "mask_k"])
unmasked = theirs[theirs["mask_k"] == 0].set_index("n_train")["accuracy"]
effect = theirs["accuracy"] - theirs["n_train"].map(unmasked)
theirs = theirs.assign(effect=effect.where(theirs["mask_k"] > 0))
study.save_table("published", published)
display(show(theirs[["n_train", "mask_p", "mask_k", "accuracy", "train_accuracy", "effect"]]))
study.save_figure(
    "published", grouped_bars(published[published["n_train"] == 5000], x="mask_p", bars="mask_k")
)
odd = load_published("Attention_Masking")
show(odd.loc[odd["note"] != "", ["name", "note"]])

# %% [markdown]
# ## The runs
# Every network is trained once. Masking in evaluation changes no weight: with the same seed a run
# that masks in evaluation too ends with the same network as one that does not. So each network is
# asked twice, and the difference is the quirk alone.


# %%
def masking(k, p, variant):
    name = f"K {k}, p {p:g}" + (", logits" if variant == "logits" else "")
    as_published = {"mask_in_eval": True} if variant == "scores" else {}
    return name, {"mask_k": k, "mask_p": p, "mask_variant": variant} | as_published


reference, maskings, comparisons = "no masking", {}, {}
for n_train, n_epochs, *arms in zip(train_sizes, epochs, score_arms, logit_arms, strict=True):
    named = zip(("scores", "logits"), arms, strict=True)
    title, size = f"{n_train} images", {"n_train": n_train, "epochs": n_epochs}
    maskings[title] = dict(masking(k, p, variant) for variant, of in named for k, p in of)
    of_title = {reference: {}} | maskings[title]
    comparisons[title] = {arm: size | own for arm, own in of_title.items()}
records, frame = run_comparisons(study, comparisons, seeds)
Markdown(study.made_of(records))

# %% [markdown]
# ## Asked twice
# Every arm in three phases. *Training*: masked in training alone, as a regulariser should be.
# *Both*: in evaluation too, as published. *Evaluation*: the reference networks, which were never
# masked, evaluated under masks.


# %%
def trained(title: str, arm: str) -> list[dict]:
    """The records of one arm of a comparison."""
    ids = frame.loc[(frame["comparison"] == title) & (frame["arm"] == arm), "id"].unique()
    return [record for record in records if record["id"] in ids]


def ask(title: str, name: str) -> dict[str, list[dict]]:
    """A masking's networks, and the reference's, measured in each phase where weights are here."""
    fields, masked = maskings[title][name], trained(title, name)
    unmasked = trained(title, reference)
    return {
        "training": evaluate_again(study.store, masked, mask_in_eval=False),
        "evaluation": evaluate_again(study.store, unmasked, **fields | {"mask_in_eval": True}),
        "both": evaluate_again(study.store, masked, mask_in_eval=True),
    }


# %%
PHASES = ("training", "evaluation", "both")
parts, missing = [frame[frame["arm"] == reference].assign(masking=None, phase=None)], []
for title, name in [(title, name) for title, of in maskings.items() for name in of]:
    for phase, answers in ask(title, name).items():
        place = {"comparison": title, "arm": f"{name}: {phase}", "masking": name, "phase": phase}
        if answers:
            parts.append(long_form(answers).assign(**place))
        else:
            missing.append(place["arm"])
asked = pd.concat(parts, ignore_index=True)
study.save_table("runs", asked)
Markdown(f"Their runs came without weights: {'; '.join(missing) or 'none'}.")

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row, the reference, on the same seeds. Published runs stand beside *both*, matched by p and
# by K as a share of M; where the scale is not theirs, only effects compare.

# %%
as_published = asked["masking"].isna() | (asked["phase"] == "both")
like = asked[as_published & (asked["mask_variant"] == "scores")]
per_m = published["memory_size"].iloc[0] / study.base.model.memory_size
like = like.assign(mask_k=per_m * like["mask_k"])
if not study.same_scale:
    like = like.assign(n_train=1000)
beside = published_beside(like, published, on=["n_train", "mask_k", "mask_p"])
table = arm_table(asked, published=beside, same_scale=study.same_scale)
study.save_table("summary", table)
for title, rows in table.groupby("comparison", sort=False):
    display(show(headline(rows), caption=title))

# %% [markdown]
# ## The figure
# What masking costs, by the phase in which it acts: a dot a seed, an upright bar their mean.

# %%
of_run = ["comparison", "seed", "task"]
unmasked = asked.loc[asked["masking"].isna(), [*of_run, "accuracy"]]
effects = asked[asked["masking"].notna()].merge(unmasked, on=of_run, suffixes=("", "_unmasked"))
effects["points"] = 100 * (effects["accuracy"] - effects["accuracy_unmasked"])
effects = effects[effects["task"] == "majority"]
majority = table[table["task"] == "majority"]
known = majority.dropna(subset="published_effect")
known = known.assign(masking=known["arm"].str.removesuffix(": both"))
colours = dict(zip(PHASES, sns.color_palette("colorblind", 3), strict=True))
along = {"y": "masking", "hue": "phase", "hue_order": PHASES, "palette": colours, "legend": False}
bar = {"marker": "|", "linestyle": "none", "markersize": 15, "markeredgewidth": 2}

# %%
for title, rows in effects.groupby("comparison", sort=False):
    names = list(rows["masking"].unique())
    figure, ax = plt.subplots(figsize=(8, 1.3 + 0.62 * len(names)))
    sns.stripplot(rows, x="points", ax=ax, dodge=True, jitter=False, size=5, **along)
    sns.pointplot(rows, x="points", ax=ax, dodge=0.8 * 2 / 3, errorbar=None, **bar, **along)
    theirs_here = known[known["comparison"] == title]
    places = theirs_here["masking"].map(names.index) + 0.8 / 3  # where `both` stands
    ax.plot(100 * theirs_here["published_effect"], places, zorder=5, **DIAMOND)
    ax.axvline(0, color=GREY, linewidth=1.1)
    ax.grid(axis="x")
    ax.set(xlabel="change in accuracy on majority against no masking (points)", ylabel="")
    ax.set_ylim(len(names) - 0.5, -0.5)
    keys = [
        Line2D([], [], ls="", marker="o", color=colour, label=f"masked in {phase}")
        for phase, colour in colours.items()
    ]
    scale = "" if study.same_scale else ", at its own scale"
    row_legend(figure, [*keys, Line2D([], [], label=f"published (both){scale}", **DIAMOND)])
    study.save_figure(f"phases_{title.split()[0]}", figure)

# %% [markdown]
# ## Whose loss is it?
# Points of accuracy on majority against the reference. *Due to evaluation* is what the same
# networks change by when evaluation masks them, one value a network: *both* less *training*.
# *Survives*: the chance that a
# patch which is always among the K best, and comes at a random place of the order, outlives a
# selection that drops by score; beside it the same with the published N, M and I.


# %%
def survival(p: float, model: ModelConfig, n_patches: int) -> float:
    """A patch faces a drop with probability p in every iteration from its own on."""
    later = np.maximum(np.arange(n_patches) - model.memory_size, 0)
    iteration = later // model.iter_size  # the first M patches face them all
    return float(((1 - p) ** (iteration.max() + 1 - iteration)).mean())


# %%
masked = majority[majority["arm"] != reference]
masked = masked.join(
    masked["arm"].str.rsplit(": ", n=1, expand=True).set_axis(["masking", "phase"], axis=1)
)
loss = masked.pivot(index=["comparison", "masking"], columns="phase", values="effect")
loss = loss.reindex(columns=list(PHASES)).rename_axis(columns=None).reset_index()
parts = [pd.DataFrame(columns=["comparison", "masking", "accuracy"])]
for (title, name), runs in asked[asked["task"] == "majority"].groupby(["comparison", "masking"]):
    runs = runs[runs["phase"].isin(["training", "both"])]
    same = paired_differences(runs, f"{name}: training")
    parts.append(same.assign(comparison=title, masking=name))
quirk = effects_over_seeds(pd.concat(parts), by=["comparison", "masking"])
ends = {"effect": "due_to_evaluation", "effect_low": "due_low", "effect_high": "due_high"}
due = quirk.rename(columns=ends)[["comparison", "masking", *ends.values()]]
loss = loss.merge(due, how="left", on=["comparison", "masking"])
study.save_table("loss", loss)
here = (study.base.model, data.grid.n_patches)
there = (ModelConfig(), MegapixelMNISTConfig(canvas=1500).grid.n_patches)
chosen = [maskings[row.comparison][row.masking] for row in loss.itertuples()]
shown = loss.set_index(["comparison", "masking"])
for heading, (model, n_patches) in {"survives": here, "survives, published": there}.items():
    shown[heading] = [
        survival(each["mask_p"], model, n_patches) if each["mask_variant"] == "scores" else np.nan
        for each in chosen
    ]
show((100 * shown).reset_index(), caption="all in percent or points")

# %% [markdown]
# ## Does masking lose the digits?
# A dot a run, for the reference and the strongest masking by score (largest K x p). Runs on the
# left kept few digits; low on the right, they kept them and did not read them.

# %%
for title, rows in asked.groupby("comparison", sort=False):
    by_score = {name: m for name, m in maskings[title].items() if "mask_in_eval" in m}
    strength = {name: m["mask_k"] * m["mask_p"] for name, m in by_score.items()}
    strongest = max(strength, key=strength.get)
    rows = rows[rows["masking"].isna() | (rows["masking"] == strongest)]
    study.save_figure(f"attention_{title.split()[0]}", attention_against_accuracy(rows))

# %% [markdown]
# All tasks, for each network as it was asked in training: by score under masks, as published, by
# logits without.

# %%
for title, rows in frame.groupby("comparison", sort=False):
    study.save_figure(f"accuracy_{title.split()[0]}", arm_dots(rows))

# %% [markdown]
# ## The published run, replayed
# The reference with 1000 images, at its own scale: the published log beside the records of it that
# come with this checkout, whatever the profile. A run from the *published start* has the published
# run's data, initial weights, and orders of images and patches; only dropout's draws are others,
# since those came from a GPU. A start of our *own* shares none of these.


# %%
def setting(config: dict) -> dict:
    """What repeats of a run have in common."""
    return {name: value for name, value in config.items() if name not in ("start", "seed")}


published_first = published_runs(start="published")
replayed = next(run.config for run in published_first if run.name == REFERENCE)
store = RecordStore(project_root() / "outputs/paper/records")
wanted = setting(replayed.flat())
repeats = [r for r in store.all() if setting(run_config(r["config"]).flat()) == wanted]
start = {record["id"]: record["config"].get("start", "own") for record in repeats}
repeats.sort(key=lambda r: (start[r["id"]] == "own", -arithmetic_of(r), r["config"]["seed"]))

# %%
log = published_curve().pivot(index="epoch", columns="task")
first = {("published", 0): log["loss"].loc[1].to_dict()}  # losses by task in the first epoch
log = pd.DataFrame({"loss": log["loss"].mean(axis=1), "accuracy": log["accuracy", "majority"]})
curves = {("published", 0): log}
ends = [published[published["name"] == REFERENCE].assign(run="published", seed=0)]
measures = {"train.loss_parts.task": "loss", "train.accuracy.majority": "accuracy"}
for record in repeats:
    run = f"{start[record['id']]} start, arithmetic {arithmetic_of(record)}"
    history = pd.json_normalize(record["history"]).set_index("epoch")
    place = run, record["config"]["seed"]
    curves[place] = history[list(measures)].rename(columns=measures)
    first[place] = record["history"][0]["train"].get("task_losses", {})
    ends.append(long_form([record]).assign(run=run))
curves = pd.concat(curves, names=["run", "seed"])
study.save_table("replay", curves.reset_index())
told = [
    f"Arithmetic {version} changed: {ARITHMETICS[version]}." for version in list(ARITHMETICS)[1:]
]
if replayed.id not in start:
    told.append("From the published start today's arithmetic has made no record yet.")
Markdown("\n\n".join(told))

# %%
y_labels = {"loss": "training loss, mean of tasks", "accuracy": "training accuracy, majority (%)"}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
shown = curves.reset_index().assign(accuracy=lambda each: 100 * each["accuracy"])
colours = dict(zip(shown["run"].unique(), [PUBLISHED, *level_colours(4)[::-1]], strict=False))
along = {"x": "epoch", "hue": "run", "units": "seed", "estimator": None, "palette": colours}
for ax, (y, label) in zip(panels, y_labels.items(), strict=True):
    sns.lineplot(shown, y=y, ax=ax, legend=y == "loss", **along)
    ax.set_ylabel(label)
panels[1].axhline(100 * chance_level("majority"), **CHANCE_LINE)
study.save_figure("replay", figure)

# %% [markdown]
# Training loss by task in the first epoch, of the runs that tell it; then test accuracy in the
# last. *Gap* is the largest difference of a run's mean training loss to the published one over
# epochs 1 to 12, before other draws of dropout have led far apart; take-off is that on majority.

# %%
early = curves["loss"].unstack("epoch").loc[:, :12]
gap = (early - early.loc["published"].iloc[0]).abs().max(axis=1)
ends = pd.concat([each[["run", "seed", "task", "accuracy", "take_off_epoch"]] for each in ends])
accuracy = ends.pivot(index=["run", "seed"], columns="task", values="accuracy")[list(TASKS)]
take_off = ends[ends["task"] == "majority"].set_index(["run", "seed"])["take_off_epoch"]
replay = pd.concat({"gap": gap, "take_off_epoch": take_off}, axis=1).join(100 * accuracy)
replay = replay.reindex(list(first)).rename_axis(["run", "seed"])
study.save_table("replay_ends", replay.reset_index())
first = pd.DataFrame(first.values(), index=replay.index, columns=TASKS).dropna()
display(show(first.map("{:.4f}".format).reset_index(), caption="training loss in epoch 1"))
show(replay.reset_index(), caption="test accuracy in percent")

# %%
lines, theirs_end = [], replay.loc["published", "majority"].iloc[0]
for run, each in replay.iloc[1:].groupby("run", sort=False):
    difference = (each["majority"] - theirs_end) / 100
    bounds = f"seeds: {len(each)}; 95 % interval {points(*t_interval(difference))}"
    lines.append(
        f"*{run}*: majority {each['majority'].mean():.1f} %, {points(difference.mean())} from the "
        f"published {theirs_end:.1f} % ({bounds}). Mean training loss stays within "
        f"{each['gap'].max():.2f} of the published one over epochs 1 to 12."
    )
Markdown("\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1)))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
row, finding, size = published_row(table[table["arm"].str.endswith(": both")]), None, ""
if row is not None:
    name, title = row["arm"].removesuffix(": both"), row["comparison"]
    size, rows = title.split()[0], asked[asked["comparison"] == title]
    more = {"direction": 1, "published": row["published_effect"]}
    if f"{name}: training" in set(rows["arm"]):
        claim = "masking in training raises accuracy"
        finding = arm_finding(claim, rows, f"{name}: training", **more)
        display(show(compare_arm(rows, f"{name}: training"), caption=title))
study.finding(finding, figure=f"phases_{size}")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. Where networks did not take off, effects say nothing; where those
# masked in training did not, though evaluation masks nothing, masks have kept them from learning.

# %%
level = majority[majority["arm"] == reference].set_index("comparison")
kept = masked.groupby(["comparison", "phase"], sort=False)["roi_recall"].agg(["min", "max"])
shown = level[["n", "mean", "took_off", "chance", "roi_recall"]].reset_index()
display(show(shown, caption="no masking"))
shown = ["comparison", "masking", "n", "effect", "effect_low", "effect_high", "p"]
display(show(quirk[shown], caption="due to evaluation: the same networks with masks and without"))
show((100 * kept).reset_index(), caption="digits kept (%), over the maskings of each phase")

# %%
in_training = masked[masked["phase"] == "training"]
took_off = in_training["took_off"] * in_training["n"]
by_p = theirs[(theirs["n_train"] == 5000) & theirs["mask_k"].isin([0, 10])].set_index("mask_p")
falls = (by_p["accuracy"].diff() < 0).sum()
at_k = theirs[(theirs["mask_p"] == 0.2) & (theirs["n_train"] == 1000)].set_index("mask_k")
ends = 100 * by_p[["accuracy", "train_accuracy"]].iloc[[0, -1]]

# %%
Markdown(f"""
1. The claim needs masking in training alone to raise accuracy: the whole interval of the effect is
   above zero in {(in_training["effect_low"] > 0).sum()} of {len(in_training)} maskings, below in
   {(in_training["effect_high"] < 0).sum()}. Of the networks masked in training
   {took_off.sum():.0f} of {in_training["n"].sum()} took off.
2. Asked under masks too, the same networks change by an interval that is all below zero in
   {(quirk["effect_high"] < 0).sum()} of {len(quirk)} maskings: that much is the quirk's.
3. Published, at its own scale: accuracy falls at {falls} of {len(by_p) - 1} steps from p
   {by_p.index[0]:g} to {by_p.index[-1]:g}, {ends["accuracy"].iloc[0]:.0f} to
   {ends["accuracy"].iloc[1]:.0f} %; on its own training images, under masks too, it goes from
   {ends["train_accuracy"].iloc[0]:.0f} to {ends["train_accuracy"].iloc[1]:.0f} %. At p = 0.2, K
   from {at_k.index.min()} to {at_k.index.max()} changes it by
   {100 * np.ptp(at_k["accuracy"]):.0f} points.
4. Seeds an arm: {len(seeds)}. An interval that includes zero does not show that masking does
   nothing; fewer than three seeds have none, and what is luck cannot be told.
""")

# %% [markdown]
# ## Limits
# - The phases of one masking share networks, and *evaluation* shares the reference's: their
#   intervals are not independent of each other. That *both* less *training* is the same networks
#   asked twice makes it sharper than either.
# - Evaluation under masks is random; each network was asked once, with the same draws.
# - The source masks the attention that pools a fixed bag. Here masks act on the selection, as
#   published, and a patch once dropped is gone: the logit arm is the source's count and place
#   (before the softmax), not its bag.
# - The published sweep over p has other sizes than that over K (training images, epochs), its
#   noise count is unstated, and its reference was made for another category.
# - Outside `paper` a selection has fewer iterations than published, so the same p masks less:
#   *survives* tells how much.
