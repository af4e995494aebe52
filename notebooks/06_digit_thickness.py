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
# # 06 - How thick may noise be before it hides the digits?
#
# **Claim** (arXiv 2412.11237): the more alike the strokes of noise and digits are in thickness,
# the less the network generalises, *gradually* until it fails. What is varied is the thickness of
# the noise; the digits stay as they are.
#
# **Published**: widths of 1.4 to 2.6 px on noise of 28 px, up to three runs each, and one run at
# 5 px. Accuracy falls to chance between 1.8 and 2.0 px. But widths were cut to whole pixels before
# drawing: 1.4 to 1.8 all drew 1 px and 2.0 to 2.6 all drew 2 px, so these are two settings.
#
# **Contrast, written before any run**: accuracy on majority among noise of 2 whole pixels, which
# are nearer to the digits' strokes, less that among noise of 1, on the same seeds. *Supports*:
# below zero. *Contradicts*: above zero. *Equivalent to none*: within 5 points. Else *open*. A fall
# that goes on where noise is thicker than digits would speak for thickness and not for likeness.

# %% tags=["parameters"]
profile = "overnight"  # base settings: params/<profile>/base.yaml; the rest is set below
true_widths = []  # px, drawn as asked for; the first arm of all is the reference
pixel_widths = [1.925, 2.6]  # px asked for, cut to whole pixels as published
seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]  # of training: weights, order of images, of patches
n_measured = 200  # noise patterns, and digits, whose strokes are measured
settings = {  # fields of RunConfig that all these runs share, where the base has others
    "n_noise": 52
}
also = []  # runs off this grid, each as fields of RunConfig
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.study import (
    CHANCE_LINE,
    DIAMOND,
    INK,
    OURS,
    Study,
    arm_dots,
    arm_finding,
    arm_table,
    attention_against_accuracy,
    chance_level,
    compare_arm,
    draw_means,
    headline,
    image_row,
    long_form,
    noise_patterns,
    published_accuracy,
    published_beside,
    row_legend,
    run_arms,
    show,
    stroke_table,
    summarise,
    task_panels,
)

study = Study("06_digit_thickness", profile, overrides=overrides)
study

# %% [markdown]
# ## The strokes
# An arm is a way of drawing and a width: *true* as asked for, anti-aliased, or *whole* as
# published, with the width that was asked for behind it.

# %%
true = {f"true {w:g} px": w for w in true_widths}
whole = {f"whole {int(w)} px ({w:g})": w for w in pixel_widths}
arms = {arm: {"noise": "bezier", "stroke_width": w} for arm, w in true.items()}
arms |= {arm: {"noise": "bezier_pixel", "stroke_width": w} for arm, w in whole.items()}
arms = {arm: settings | fields for arm, fields in arms.items()}
patterns = {a: noise_patterns(study.config(**f).data, n_measured) for a, f in arms.items()}
digits = load_digits(study.base.data.digits, "test").images[:n_measured]
shown = {"a digit": digits} | patterns
titles = [arm.replace(" (", "\n(") for arm in shown]
columns = min(len(shown), 7)
study.save_figure("strokes", image_row([i[0] for i in shown.values()], titles, columns=columns))

# %% [markdown]
# How wide they are is measured on the drawn images, digits and noise alike: ink over length, in px
# at 28 px. *Low* and *high* are the quartiles over images.

# %%
strokes = stroke_table({"digits": digits} | patterns)
study.save_table("strokes", strokes)
measured = strokes.set_index("arm")
digit = measured.loc["digits"]
show(strokes.round(2))

# %% [markdown]
# ## What was published
# Canvas 1500 x 1500 px, 800 noise objects, 2000 images, 50 epochs; runs that stopped early left
# out. *As drawn* places each run at the width that its strokes really had.

# %%
published = published_accuracy("Digit_Thickness", canvas=1500)
asked = sorted(published["stroke_width"].unique())
pixels = {int(w): study.config(noise="bezier_pixel", stroke_width=int(w)).data for w in asked}
drawn = stroke_table({px: noise_patterns(each, n_measured) for px, each in pixels.items()})
drawn = drawn.set_index("arm")["stroke"]
published["stroke"] = published["stroke_width"].map(lambda asked_for: drawn[int(asked_for)])

# %%
MEASURED = "stroke width of the noise, measured (px at 28 px)"


def mark_digits(ax):
    band = {"color": "#f6ead0", "zorder": 0.5, "label": "middle half of digits"}
    ax.axvspan(digit["stroke_low"], digit["stroke_high"], **band)
    ax.axvline(digit["stroke"], color="#c9a24b", lw=1.2, zorder=0.6, label="digits: mean")


figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
rows = published[published["task"] == "majority"]
mark_digits(right)
for ax, x in ((left, "stroke_width"), (right, "stroke")):
    ax.plot(rows[x], 100 * rows["accuracy"], label="published run", **DIAMOND)
    ax.axhline(100 * chance_level("majority"), label="chance", **CHANCE_LINE)
left.set(title="stroke width asked for", xlabel="px at 28 px", ylabel="majority, accuracy (%)")
right.set(title="stroke width as drawn", xlabel=MEASURED, ylim=(0, 102))
row_legend(figure, right.get_legend_handles_labels()[0])
study.save_figure("published", figure)

# %% [markdown]
# ## The runs
# With them published runs off this grid, if any were asked for.

# %%
records, frame = run_arms(study, arms, seeds)
frame["stroke"] = frame["arm"].map(measured["stroke"])
apart = study.run([study.config(**fields) for fields in also])
study.save_table("runs", frame)
if also:
    off_grid = long_form(apart)
    study.save_table("off_grid", off_grid)
    by = ["canvas", "n_train", "stroke_width"]
    display(show(summarise(off_grid, by=by), caption="off the grid"))
shared = ", ".join(f"{name} {value}" for name, value in settings.items())
Markdown(study.made_of(records) + (f" All with {shared}." if shared else ""))

# %% [markdown]
# ## The tables
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row.

# %%
table = arm_table(frame)
study.save_table("summary", table.merge(strokes, on="arm"))
show(headline(table))

# %% [markdown]
# Whole pixels among themselves, beside the published runs: the mean of all whose strokes were as
# many pixels wide. They are of another scale than those outside `paper`: compare effects.

# %%
ours, theirs = (each.assign(pixels=each["stroke_width"].astype(int)) for each in (frame, published))
beside = published_beside(ours[ours["arm"].isin(whole)], theirs, on=["pixels"])
steps = arm_table(frame, reference=next(iter(whole)), published=beside, same_scale=study.same_scale)
steps = steps[steps["arm"].isin(whole)]
study.save_table("whole_pixels", steps)
show(headline(steps))

# %% [markdown]
# ## The figures
# Accuracy against the width of the noise as it was measured, the digits' own width marked. Marks
# are means with their 95 % interval, from three seeds on.

# %%
SERIES = {
    "bezier": {"label": "true width", "color": OURS, "fmt": "o-"},
    "bezier_pixel": {"label": "whole pixels", "color": "#029e73", "fmt": "s--"},
}
means = summarise(frame, by=["arm", "noise", "stroke"]).sort_values("stroke")
names = {"x_label": MEASURED, "y_label": "test accuracy (%)"}
figure, panels = task_panels(list(frame["task"].unique()), **names)
for task, ax in panels.items():
    mark_digits(ax)
    for noise, rows in means[means["task"] == task].groupby("noise"):
        draw_means(ax, rows["stroke"], rows, mec="white", **SERIES[noise])
    runs = frame[frame["task"] == task]
    dots = {"s": 12, "color": INK, "linewidth": 0, "zorder": 5, "label": "one run"}
    ax.scatter(runs["stroke"], 100 * runs["accuracy"], **dots)

# %%
if study.same_scale:
    for task, ax in panels.items():
        rows = beside[beside["task"] == task]
        ax.plot(rows["stroke"], 100 * rows["accuracy"], label="published run", **DIAMOND)
row_legend(figure, ax.get_legend_handles_labels()[0])
study.save_figure("accuracy", figure)

# %% [markdown]
# The same, an arm a row.

# %%
study.save_figure("arms", arm_dots(frame, published=beside, same_scale=study.same_scale))

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(frame))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
majority, finding = steps[steps["task"] == "majority"], None
for _, row in majority[majority["arm"].str.startswith("whole 2 px")].head(1).iterrows():
    more = {"direction": -1, "published": row.get("published_effect", np.nan)}
    of_row = {"arm": row["arm"], "reference": next(iter(whole))}
    finding = arm_finding("likeness in thickness hides the digits", frame, **of_row, **more)
    display(show(compare_arm(frame, **of_row)))
study.finding(finding, figure="accuracy")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. *The match* is the true width nearest to the digits' own, and the
# reference of the table. If it is likeness that hides the digits, noise thinner and noise
# thicker than the match both do better than the match; if it is thickness, thicker noise does worse
# still.

# %%
told = Markdown("No true widths were run in this profile.")
if true:
    widths = measured.loc[list(true), "stroke"]
    match = (widths - digit["stroke"]).abs().idxmin()
    against = arm_table(frame[frame["arm"].isin(true)], reference=match)
    against = against[against["task"] == "majority"].join(widths, on="arm").sort_values("stroke")
    columns = ["arm", "stroke", "mean", "chance", "effect", "effect_low", "effect_high"]
    told = show(against[columns], caption=f"against the match, {match}")
told

# %% [markdown]
# The step from 1 to 2 whole pixels, where accuracy falls to chance in the published runs. *Left* is
# the share of what the first row has above chance.

# %%
step = steps[steps["task"] == "majority"]
above = step[["mean", "published"]].sub(step["chance"], axis=0)
left = above.div(above.iloc[0]).set_axis(["left here (%)", "left, published (%)"], axis=1)
show(step[["arm", "effect", "effect_low", "effect_high", "published_effect"]].join(100 * left))

# %%
majority = table[table["task"] == "majority"]
lines = [
    f"""The digits' strokes are {digit["stroke"]:.1f} px wide (middle half
    {digit["stroke_low"]:.1f} to {digit["stroke_high"]:.1f}). The {len(asked)} published widths of
    noise drew {published["stroke"].nunique()}, {published["stroke"].min():.1f} to
    {published["stroke"].max():.1f} px as measured."""
]
if true:
    thinner = against[against["stroke"] < widths[match]]
    thicker = against[against["stroke"] > widths[match]]
    half = against[against["mean"] < (against["mean"].iloc[0] + against["chance"].iloc[0]) / 2]
    lines += [
        f"""Better than the match, with the whole interval of the effect:
    {(thinner["effect_low"] > 0).sum()} of {len(thinner)} thinner noises and
    {(thicker["effect_low"] > 0).sum()} of {len(thicker)} thicker ones. Worse than it:
    {(thicker["effect_high"] < 0).sum()} of the thicker.""",
        f"""The thinnest true width whose mean is less than half of what the thinnest of all has
    above chance: {half["arm"].iloc[0] if len(half) else "none"}.""",
    ]
lines.append(
    f"""{(majority["took_off"] * majority["n"]).sum():.0f} of {majority["n"].sum()} runs took off.
    Seeds an arm: {len(seeds)}; where they are few, one run that learns nothing decides an arm's
    mean."""
)
Markdown("\n".join(f"{n}. {line}" for n, line in enumerate(lines, start=1)))

# %% [markdown]
# ## Limits
# - Width is not all that differs: thicker noise is also more ink.
# - Measured widths are means over strokes that cross themselves; a single pattern may be off by a
#   tenth and more. Digits differ among themselves far more than that.
# - Whole-pixel widths that are cut to the same pixel draw the same images: at one seed their runs
#   are one run, not repeats.
# - Outside `paper` a canvas holds fewer noise objects, and what needs hundreds of them cannot show.
# - Intervals are not corrected for the number of arms.
