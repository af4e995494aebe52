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
# **What would refute it**: of the claim, accuracy that masking in training does not raise; of the
# quirk as the explanation, a loss that stays when evaluation masks nothing.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
train_sizes = [1500]  # images; each has a reference of its own
epochs = [8]  # one number a training size
score_arms = [[[4, 0.2]]]  # [K, p], a list a training size; as published
logit_arms = [[[4, 0.25]]]  # [K, p]: exactly K x p of the K best logits, as in the source (ACMIL)
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"lr": 0.0005}

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from ipslib.config import ModelConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import arm_finding, published_row
from ipslib.study.arm_figures import arm_dots, attention_against_accuracy
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.figures import grouped_bars
from ipslib.study.gallery import example_row
from ipslib.study.mask_phases import (
    PHASES,
    mask_phases,
    phase_dots,
    phase_effects,
    phase_table,
    survival,
)
from ipslib.study.published import load_published, published_accuracy
from ipslib.study.published_configs import published_runs
from ipslib.study.session import Study
from ipslib.study.tables import show
from ipslib.study.wording import effect_in_words, points

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


reference, runs, maskings = "no masking", {}, {}
for n_train, n_epochs, *arms in zip(train_sizes, epochs, score_arms, logit_arms, strict=True):
    named = zip(("scores", "logits"), arms, strict=True)
    maskings[n_train] = dict(masking(k, p, variant) for variant, of in named for k, p in of)
    size = {"n_train": n_train, "epochs": n_epochs}
    fields = {arm: size | own for arm, own in ({reference: {}} | maskings[n_train]).items()}
    runs[n_train] = run_arms(study, fields, seeds)
records = [record for each in runs.values() for record in each.records]
Markdown(study.made_of(records))

# %% [markdown]
# ## Asked twice
# Every arm in three phases. *Training*: masked in training alone, as a regulariser should be.
# *Both*: in evaluation too, as published. *Evaluation*: the reference networks, which were never
# masked, evaluated under masks.

# %%
frames = {
    n_train: mask_phases(study.store, each, maskings[n_train]) for n_train, each in runs.items()
}
n_wanted = sum(1 + len(PHASES) * len(each) for each in maskings.values())
n_found = sum(each["arm"].nunique() for each in frames.values())
Markdown(
    "Every network was asked."
    if n_found == n_wanted
    else f"{n_wanted - n_found} of {n_wanted} arms are missing: their runs came without weights."
)

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row, the reference, on the same seeds. Published runs stand beside *both*, matched by p and
# by K as a share of M; where the scale is not theirs, only effects compare.

# %%
published_ids = {run.config.id for run in published_runs()}
per_m = published["memory_size"].iloc[0] / study.base.model.memory_size
same_scale = {n: frame["id"].iloc[0] in published_ids for n, frame in frames.items()}
tables = {}
for n_train, frame in frames.items():
    of_size = published[published["n_train"] == (n_train if same_scale[n_train] else 1000)]
    counterparts = {reference: {"mask_k": 0}}
    for name, fields in maskings[n_train].items():
        wanted = {"mask_k": per_m * fields["mask_k"], "mask_p": fields["mask_p"]}
        was_run = (of_size[list(wanted)] == list(wanted.values())).all(axis=1).any()
        if was_run and fields["mask_variant"] == "scores":
            counterparts[f"{name}: both"] = wanted
    beside = published_arms(of_size, counterparts)
    tables[n_train] = arm_table(frame, published=beside, same_scale=same_scale[n_train])
    display(show(headline(tables[n_train]), caption=f"{n_train} training images"))
study.save_table("runs", pd.concat(frames.values()))
study.save_table("summary", pd.concat(tables, names=["n_train"]).reset_index("n_train"))

# %% [markdown]
# ## The figure
# What masking costs, by the phase in which it acts.

# %%
effects = {n_train: phase_effects(frame) for n_train, frame in frames.items()}
for n_train, each in effects.items():
    rows = tables[n_train].query("task == 'majority'").set_index("arm")
    known = rows["published_effect"].dropna().rename(lambda arm: arm.removesuffix(": both"))
    figure = phase_dots(each, published=known.to_dict(), same_scale=same_scale[n_train])
    study.save_figure(f"phases_{n_train}", figure)

# %% [markdown]
# ## Whose loss is it?
# Points of accuracy on majority against the reference. *Due to evaluation* is what the same
# networks lose when evaluation masks them: *both* less *training*. *Survives*: the chance that a
# patch which is always among the K best, and comes at a random place of the order, outlives a
# selection that drops by score; beside it the same with the published N, M and I.

# %%
losses = {n_train: phase_table(each) for n_train, each in effects.items()}
loss = pd.concat(losses, names=["n_train"]).reset_index("n_train").reset_index(drop=True)
study.save_table("loss", loss)
chosen = [maskings[row.n_train][row.masking] for row in loss.itertuples()]
here = (study.base.model, data.grid.n_patches)
there = (ModelConfig(), MegapixelMNISTConfig(canvas=1500).grid.n_patches)
shown = loss.set_index(["n_train", "masking"])
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
for n_train, frame in frames.items():
    by_score = [(name, each) for name, each in maskings[n_train].items() if "mask_in_eval" in each]
    strongest = max(by_score, key=lambda each: each[1]["mask_k"] * each[1]["mask_p"])[0]
    rows = frame[frame["masking"].isna() | (frame["masking"] == strongest)]
    study.save_figure(f"attention_{n_train}", attention_against_accuracy(rows))

# %% [markdown]
# All tasks, for each network as it was asked in training: by score under masks, as published, by
# logits without.

# %%
for n_train, each in runs.items():
    study.save_figure(f"accuracy_{n_train}", arm_dots(each.frame))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
summary = pd.concat(tables, names=["n_train"]).reset_index("n_train")
row = published_row(summary[summary["arm"].str.endswith(": both")])
finding = None
if row is not None:
    name, size = row["arm"].removesuffix(": both"), row["n_train"]
    part = loss[(loss["masking"] == name) & (loss["n_train"] == size)].iloc[0]
    note = f"Masked in training alone {points(part['training'])}; due to evaluation "
    note += f"{points(part['due_to_evaluation'])}."
    compared = f"{name}, in training and evaluation, against no masking"
    finding = arm_finding(row, compared, note=note)
study.finding(finding, figure=f"phases_{train_sizes[0] if row is None else size}")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout.

# %%
lines, learned, reads = [], {}, []
for n_train, each in tables.items():
    rows = each[each["task"] == "majority"].set_index("arm")
    level, chance = 100 * rows["mean"][reference], 100 * rows["chance"][reference]
    learned[n_train] = level > 2 * chance
    lines.append(
        f"{n_train} images: {level:.0f} % with no masking (chance {chance:.0f} %)"
        f"{'' if learned[n_train] else '; it has not learned, and effects say nothing'}."
    )
    for row in losses[n_train].dropna().itertuples():
        said = {phase: effect_in_words(each, f"{row.masking}: {phase}") for phase in PHASES}
        lines[-1] += (
            f"\n   - *{row.masking}*: in training alone {said['training']}, in evaluation too "
            f"{said['both']}; due to evaluation {points(row.due_to_evaluation)}"
        )
        reading = 100 * rows["mean"][f"{row.masking}: training"]
        if learned[n_train] and reading > 2 * chance:
            reads.append((n_train, row.masking))

# %%
asked = loss.dropna()  # networks without weights here could not be asked
ours = asked[asked["n_train"].map(learned)].set_index(["n_train", "masking"])
losers = ours.loc[reads].query("both < -0.02")
share = losers["due_to_evaluation"] / losers["both"]
if len(ours):
    lines.append(
        f"In {len(ours) - len(reads)} of {len(ours)} maskings the network stays under twice chance "
        "even when evaluation masks nothing: masks in training have kept it from learning."
    )
if len(share):
    parts = (f"{100 * part:.0f} % with *{name}*" for (_, name), part in share.items())
    lines[-1] += f" Of what the others lose, evaluation's part is {', '.join(parts)}."

# %%
if len(asked):
    lines.append(
        "The claim needs masking in training alone to raise accuracy: it does in "
        f"{(asked['training'] > 0).sum()} of {len(asked)} maskings "
        f"({points(asked['training'].min(), asked['training'].max())}). Networks that were never "
        "masked, asked under masks, change by "
        f"{points(asked['evaluation'].min(), asked['evaluation'].max())}."
    )
for n_train, each in tables.items():
    kept = 100 * each.drop_duplicates("arm").set_index("arm")["roi_recall"]
    within = {phase: kept[kept.index.str.endswith(f": {phase}")] for phase in PHASES}
    lines.append(
        f"Digits kept with {n_train} images: {kept[reference]:.0f} % with no masking; "
        + "; ".join(
            f"{each.min():.0f} to {each.max():.0f} % masked in {phase}"
            for phase, each in within.items()
            if len(each)
        )
        + "."
    )

# %%
by_p = theirs[(theirs["n_train"] == 5000) & theirs["mask_k"].isin([0, 10])].set_index("mask_p")
falls = by_p["accuracy"].is_monotonic_decreasing
at_k = theirs[(theirs["mask_p"] == 0.2) & (theirs["n_train"] == 1000)].set_index("mask_k")
lines += [
    f"Published, at its own scale: accuracy {'falls at every step' if falls else 'wavers'} from p "
    f"{by_p.index[0]:g} to {by_p.index[-1]:g}, {100 * by_p['accuracy'].iloc[0]:.0f} to "
    f"{100 * by_p['accuracy'].iloc[-1]:.0f} %, and so does what it reads of its own training "
    f"images, {100 * by_p['train_accuracy'].iloc[0]:.0f} to "
    f"{100 * by_p['train_accuracy'].iloc[-1]:.0f} % (under masks too). At p = 0.2, K from "
    f"{at_k.index.min()} to {at_k.index.max()} changes it by "
    f"{points(at_k['accuracy'].max() - at_k['accuracy'].min()).lstrip('+')}.",
    f"{len(seeds)} seeds: an interval that includes zero does not show that masking does nothing."
    if len(seeds) > 1
    else "One seed: effects have no interval, and what is luck cannot be told.",
]
if len(ours):
    lines[-2] += (
        f" Masked in both phases, as published, ours lose in {(ours['both'] < 0).sum()} of "
        f"{len(ours)} maskings: the direction "
        f"{'agrees' if (ours['both'] < 0).mean() > 0.5 else 'differs'}."
    )
Markdown("\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1)))

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
# - In `quick` a selection has fewer iterations than published, so the same p masks less: *survives*
#   tells how much.
