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
# # 13 - Does memory depend on image size?
#
# **Claim** (arXiv 2210.13007): Iterative Patch Selection (IPS) decouples memory from image size.
# What it trains on are M patches, however many the image has; only time grows with the image.
#
# **Published**: on 1500 x 1500 px, in batches of 16 with M = I = 100, a training step peaks at
# 1.84 GB and takes 371 ms, on a GPU that the logs do not name. No other side was logged.
#
# **Contrast, written before any run**: memory of a training step of IPS as a power of the image's
# area, from the smallest to the largest side that it did. *Supports*: an exponent of at most 0.05,
# where 1000 times the area takes 1.4 times the memory. *Contradicts*: 0.5 or more, growth with the
# side or faster. Between them *open*. A measured curve is no sample: it has no interval.

#
# Nothing is learned here: steps of untrained networks are timed, one at a time, each measurement
# in a fresh process. *Fails* is measured too: a process that may ask for no more memory than the
# limit is refused, or takes longer than its time.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
sides = [384, 1536, 3072, 6144, 12288]  # px of the square images
batch_size = 8  # images a step
memory_limit_mb = 4000  # that a step may ask for, beyond program, digits and network
seconds_limit = 60  # that a step may take
n_steps = 3  # timed ones, after some that are not; fewer where they are long
overrides = {}  # any other field of RunConfig, for every run, such as {"memory_size": 20}

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ipslib import MegapixelMNIST
from ipslib.study import (
    CONTRADICTS,
    GREY,
    INK,
    OPEN,
    SUPPORTS,
    Finding,
    Study,
    at_side,
    log_ticks,
    measure_sides,
    row_legend,
    show,
)

study = Study("13_efficiency", profile, overrides=overrides)
base = study.config(batch_size=batch_size)
data, model = base.data, base.model
Markdown(f"""
Digits: {study.source}. Patches of {data.patch_size} px; {model.encoder} of width
{model.width:g}, {model.n_stages} stages; M = {model.memory_size}, I = {model.iter_size}; batches
of {batch_size}.
""")

# %% [markdown]
# ## The images
# Objects per area stay the same at every side. *Blank* patches meet no object. This code encodes
# them once for all, for IPS and for all patches alike; a network over the whole image cannot.

# %%
images = []
for side in sides:
    config = at_side(base, side)
    row = {"side": side, "n_patches": config.data.grid.n_patches, "n_noise": config.data.n_noise}
    batch = MegapixelMNIST(config.data, "train").batch(range(batch_size))
    images.append(row | {"blank_share": batch.blank_share})
show(pd.DataFrame(images))

# %% [markdown]
# ## The measurements
# Three variants of reading an image, all with the same encoder. **IPS** keeps M patches. **All**
# keeps every patch: M = N, nothing is selected. **Whole** is the plain network: the encoder's
# ResNet-18 stages over the undivided image, global average pooling and a linear head a task. A step
# begins with the keys of its images, so that laying them out and drawing them is part of it.

# %%
limits = {"memory_limit_mb": memory_limit_mb, "seconds_limit": seconds_limit}
kept_in = study.layout.records / "efficiency"
measured = measure_sides(base, sides, kept_in, n_steps=n_steps, **limits)
frame, rates, made_on = measured.frame, measured.rates, measured.provenance
commits = ", ".join(frame["commit"].dropna().unique())
study.save_table("sides", frame)
Markdown(f"""
Measured on {made_on["device"]}, threads: {made_on["threads"]}; precision
{base.training.precision}; commit {commits}. Fastest matrix work found at this precision:
{rates["matmul"] / 1e9:,.0f} GFLOP/s in a matrix product, {rates["conv"] / 1e9:,.0f} in a
convolution; the roofline is the operations counted over the larger of the two. On a CPU each
measurement has one thread; other notebooks executed at the same time keep other cores busy, which
lengthens the shortest steps most.
""")

# %% [markdown]
# *Step memory* is the peak of steps beyond what the process held before the first one (program,
# digits, network), short ones repeated until it is steady; *process peak* has these too. Operations
# are those of matrix products and convolutions, a multiply-add counting as two.

# %%
NAMES = {"ips": "IPS", "all": "all patches", "whole": "whole image"}
STEPS = {"train": "Training step", "classify": "Classification"}
shown = frame[["step", "outcome"]].assign(variant=frame["variant"].map(NAMES), N=frame["n_patches"])
shown["side (px)"] = frame["side"]
shown["step memory (MB)"] = frame["step_mb"].round().astype("Int64")
shown["process peak (MB)"] = frame["peak_mb"].round().astype("Int64")
shown["ms an image"] = (1e3 * frame["seconds"]).round(1)
shown["roofline (ms)"] = (1e3 * frame["roofline_seconds"]).round(1)
shown["G operations an image"] = (frame["operations"] / 1e9).round(2)
shown["timed steps"] = frame["n_timed"]
columns = ["variant", "side (px)", "N", *shown.columns[5:], "outcome"]

# %%
show(shown.loc[frame["step"] == "train", columns], caption=STEPS["train"])

# %%
show(shown.loc[frame["step"] == "classify", columns], caption=STEPS["classify"])

# %% [markdown]
# How far each variant came: the smallest and the largest side that it did, the first at which it
# failed and why, and what a step took at both ends.

# %%
done = frame[frame["outcome"] == "done"].sort_values("side")
failed = frame[~frame["outcome"].isin(["done", "not tried"])]
keys = ["variant", "step"]
reached = frame[keys].drop_duplicates().set_index(keys)
for end in ("first", "last"):
    at = getattr(done.groupby(keys), end)()
    measures = at[["step_mb", "peak_mb", "seconds"]].add_suffix(f"_{end}")
    reached = reached.join(measures.assign(**{end: at["side"]}))
reached["over_roofline"] = (at["seconds"] / at["roofline_seconds"]).reindex(reached.index)
fails = failed.set_index(keys).rename(columns={"side": "fails", "outcome": "why"})
reached = reached.join(fails[["fails", "why"]])
reached = reached.astype({"first": "Int64", "last": "Int64", "fails": "Int64"})
study.save_table("reach", reached.reset_index())

# %% [markdown]
# ## The figure
# Both axes are logarithmic. Thin dashed lines are rooflines: no step can be faster at the measured
# matrix rate. A cross is the side at which a variant fails, at the limit that it ran into. How long
# a step that ran out of memory would have taken is not known: its cross stands where growth in
# proportion to the area would lead (dotted).

# %%
MARKS = {"ips": ("o", 8), "all": ("s", 13), "whole": ("^", 8)}  # and the size of a cross
COLOURS = dict(zip(NAMES, sns.color_palette("colorblind"), strict=False))
ROOFLINE = {"ls": (0, (5, 2)), "lw": 0.9}
CROSS = {"ls": "", "marker": "x", "mew": 2.2, "zorder": 4}
UNITS = {"seconds": "seconds an image", "step_mb": f"step memory, batch of {batch_size} (MB)"}


def where_it_fails(rows, measure, failure):
    """The height of its cross, NaN where this axis has none."""
    is_late = failure["outcome"] == "out of time"
    if is_late or measure == "step_mb":
        limit = seconds_limit / batch_size if is_late else memory_limit_mb
        return limit if is_late == (measure == "seconds") else np.nan
    last = rows.iloc[-1] if len(rows) else {"seconds": np.nan, "side": 1}
    return last["seconds"] * (failure["side"] / last["side"]) ** 2


# %%
def draw_variant(ax, variant, step, measure):
    colour, (marker, size) = COLOURS[variant], MARKS[variant]
    rows, failures = (x[(x["variant"] == variant) & (x["step"] == step)] for x in (done, failed))
    ax.plot(rows["side"], rows[measure], color=colour, marker=marker, ms=5)
    if measure == "seconds":
        ax.plot(rows["side"], rows["roofline_seconds"], color=colour, **ROOFLINE)
    for _, failure in failures.iterrows():
        height = where_it_fails(rows, measure, failure)
        ax.plot(failure["side"], height, color=colour, ms=size, **CROSS)
        for _, last in rows.tail(1).iterrows():
            ends = [last["side"], failure["side"]], [last[measure], height]
            ax.plot(*ends, color=colour, ls=":", lw=1.2)


def lay_out(ax):
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(sides, [str(side) for side in sides])
    ax.xaxis.set_minor_locator(NullLocator())
    log_ticks(ax.yaxis)


# %%
figure, grid = plt.subplots(2, 2, figsize=(10.5, 7.8), sharex=True)
for (step, title), row in zip(STEPS.items(), grid, strict=True):
    for ax, (measure, unit) in zip(row, UNITS.items(), strict=True):
        for variant in NAMES:
            draw_variant(ax, variant, step, measure)
        ax.set(ylabel=unit, xlabel="image side (px)" if step == "classify" else "")
        lay_out(ax)
    row[0].set_title(title)
    row[1].axhline(memory_limit_mb, color=GREY, lw=1)
    row[1].text(1, memory_limit_mb, " limit", transform=row[1].get_yaxis_transform(), color=GREY)
lines = [Line2D([], [], label=NAMES[v], color=c, marker=MARKS[v][0]) for v, c in COLOURS.items()]
lines.append(Line2D([], [], color=INK, label="roofline", **ROOFLINE))
row_legend(figure, [*lines, Line2D([], [], color=INK, label="fails", ms=8, **CROSS)])
study.save_figure("sides", figure)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question. Memory that does not depend on the image has
# exponent 0, memory in proportion to its area 1.

# %%
train = reached.xs("train", level="step").astype({"first": float, "last": float})
areas = 2 * np.log(train["last"] / train["first"])
exponents = np.log(train["step_mb_last"] / train["step_mb_first"]) / areas.where(areas > 0)
ips, exponent, finding = reached.loc[("ips", "train")], exponents["ips"], None
if np.isfinite(exponent):
    verdict = SUPPORTS if exponent <= 0.05 else CONTRADICTS if exponent >= 0.5 else OPEN
    others = exponents.drop("ips").dropna().rename(NAMES).map("{:.2f}".format)
    note = f"Exponents of the others: {'; '.join(others.index + ' ' + others)}."
    contrast = f"exponent of IPS' memory in the area, {ips['first']} to {ips['last']} px"
    more = {"measured": verdict, "unit": "exponent", "note": note}
    finding = Finding("memory does not grow with the image", contrast, 0, exponent, **more)
study.finding(finding, figure="sides")

# %% [markdown]
# ## Reading
# Each variant's training step at the largest side that all three reached, in multiples of IPS; and
# at the largest side of its own, in multiples of its roofline.

# %%
train = reached.xs("train", level="step")
common = int(train["last"].min())
at_common = frame[(frame["side"] == common) & (frame["step"] == "train")].set_index("variant")
beside = at_common[["step_mb", "seconds"]] / at_common.loc["ips", ["step_mb", "seconds"]]
beside = beside.rename(columns={"step_mb": "times the memory", "seconds": "times the time"})
beside["largest side (px)"] = train["last"]
beside["there, times its roofline"] = train["over_roofline"]
show(beside.round(2).rename(NAMES).reset_index(), caption=f"{common} px")


# %%
def reach_in_words(step):
    """Such as "whole image 1536 px (out of memory at 3072 px)"."""
    rows = reached.xs(step, level="step").rename(NAMES)
    ends = (
        "the largest tried" if pd.isna(r.fails) else f"{r.why} at {r.fails} px"
        for r in rows.itertuples()
    )
    lasts = rows["last"].astype(str).replace("<NA>", "0")
    return "; ".join(
        f"{name} {last} px ({end})" for name, last, end in zip(rows.index, lasts, ends, strict=True)
    )


area = (ips["last"] / ips["first"]) ** 2
step_growth = ips["step_mb_last"] / ips["step_mb_first"]
peak_growth = ips["peak_mb_last"] / ips["peak_mb_first"] - 1
same_reach = (train["last"] == ips["last"]).all()
blank = 100 * pd.DataFrame(images)["blank_share"]

# %%
Markdown(f"""
1. From {ips["first"]} to {ips["last"]} px an image's area grows {area:,.0f} times. The memory of
   an IPS training step goes from {ips["step_mb_first"]:.0f} to {ips["step_mb_last"]:.0f} MB
   ({step_growth:.2f} times; the square root of the area's growth would be {area**0.5:,.0f}), the
   peak of its process from {ips["peak_mb_first"]:.0f} to {ips["peak_mb_last"]:.0f} MB
   ({100 * peak_growth:+.0f} %). The claim is 1.00 times.
2. With {memory_limit_mb:,} MB, training reaches: {reach_in_words("train")}. All variants the same
   side: {"yes, so that these sides do not tell them apart" if same_reach else "no"}.
3. Classifying, which keeps nothing for gradients, reaches: {reach_in_words("classify")}.
4. Time is not claimed to be decoupled: over the range of point 1 IPS takes
   {ips["seconds_last"] / ips["seconds_first"]:.1f} times as long for an image.
""")

# %% [markdown]
# ## Limits

# %%
Markdown(f"""
- Times are medians of few steps on a machine that may do other work meanwhile: differences of
  some tens of percent say nothing, and a second execution shows the first one's numbers.
- {blank.min():.0f} to {blank.max():.0f} % of the patches are blank, and nearly free for IPS and
  for all patches. Photographs have no blank patches: selecting from them takes longer, and all
  patches then cost about what the whole image costs here; the memory of IPS stays.
- The roofline counts matrix work only, at the rate of large matrices. Drawing patches, batch
  normalisation and narrow layers are outside it, so that a narrow network stays far above it.
- The plain network has no attention, and nothing says that it would learn the task: it is here
  for its cost.
- Memory is what was resident, and the limit is on what was asked for, which is a little more. On
  a CPU an allocator keeps freed pieces, and libraries keep a prepared kernel for every size of
  batch that they meet: some megabytes of growth are theirs.
""")
