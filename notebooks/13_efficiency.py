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
# **What would refute it**: peak memory of IPS that grows with the side; or a network that keeps
# all patches (M = N), or a plain network over the whole image, that reaches sides as large under
# the same limit.
#
# Nothing is learned here: steps of untrained networks are timed, one at a time, each measurement
# in a fresh process. *Fails* is measured too: a process that may ask for no more memory than the
# limit is refused, or takes longer than its time.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
sides = [384, 1536, 3072, 6144, 12288]  # px of the square images
batch_size = 4  # images a step
memory_limit_mb = 2000  # that a step may ask for, beyond program, digits and network
seconds_limit = 60  # that a step may take
n_steps = 3  # timed ones, after one that is not; fewer where they are long
overrides = {}  # any other field of RunConfig, for every run, such as {"memory_size": 20}

# %%
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import Finding
from ipslib.study.efficiency import at_side, measure_sides
from ipslib.study.efficiency_figures import side_curves
from ipslib.study.efficiency_tables import WAY_NAMES, reach, reach_in_words, shown_sides
from ipslib.study.session import Study
from ipslib.study.tables import show

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
    images.append(row | {"blank_share": batch.blank.float().mean().item()})
show(pd.DataFrame(images))

# %% [markdown]
# ## The measurements
# Three ways to read an image, all with the same encoder. **IPS** keeps M patches. **All** keeps
# every patch: M = N, nothing is selected. **Whole** is the plain network: the encoder's ResNet-18
# stages over the undivided image, global average pooling and a linear head a task. A step begins
# with the keys of its images, so that laying them out and drawing them is part of it.

# %%
measured = measure_sides(
    base,
    sides,
    study.layout.records / "efficiency",
    memory_limit_mb=memory_limit_mb,
    seconds_limit=seconds_limit,
    n_steps=n_steps,
)
frame, rates, made_on = measured.frame, measured.rates, measured.provenance
study.save_table("sides", frame)
Markdown(f"""
Measured on {made_on["device"]}, threads: {made_on["threads"]}; precision
{base.training.precision}; commit {", ".join(measured.commits)}. Fastest matrix work found at this
precision: {rates["matmul"] / 1e9:,.0f} GFLOP/s in a matrix product, {rates["conv"] / 1e9:,.0f} in a
convolution; the roofline is the operations counted over the larger of the two. On a CPU each
measurement has one thread; other notebooks executed at the same time keep other cores busy, which
lengthens the shortest steps most.
""")

# %% [markdown]
# *Step memory* is the peak of a step beyond what its process held before the first one (program,
# digits, network); *process peak* has these too. Operations are those of matrix products and
# convolutions, a multiply-add counting as two.

# %%
show(shown_sides(frame[frame["step"] == "train"]), caption="Training step")

# %%
show(shown_sides(frame[frame["step"] == "classify"]), caption="Classification")

# %% [markdown]
# ## The figure
# Both axes are logarithmic. Thin dashed lines are rooflines: no step can be faster at the measured
# matrix rate. A cross is the side at which a way fails; where its other coordinate is not known,
# it stands where growth in proportion to the area would lead (dotted).

# %%
limits = {"memory_limit_mb": memory_limit_mb, "seconds_limit": seconds_limit}
study.save_figure("sides", side_curves(frame, **limits))

# %% [markdown]
# ## The finding
# Memory of a training step as a power of the image's area: the exponent of IPS less that of the
# whole image, by a straight line each in logarithms. Memory that does not depend on the image has
# exponent 0.

# %%
reached = reach(frame)
study.save_table("reach", reached)
grown = frame[(frame["step"] == "train") & frame["step_mb"].gt(0)]
grown = grown[grown["way"].isin(["ips", "whole"])].assign(area=grown["side"] ** 2)
finding = None
if grown.groupby("way")["side"].nunique().gt(1).sum() == 2:
    model = "np.log(step_mb) ~ C(way, Treatment('whole')) * np.log(area)"
    fit = smf.ols(model, grown).fit()
    whole, less = fit.params.iloc[-2:]
    low, high = fit.conf_int().iloc[-1] if fit.df_resid > 0 else (np.nan, np.nan)
    ends = reached[reached["step"] == "train"].set_index("way").loc["ips"]
    note = f"A training step of IPS takes {ends['step_mb_first']:.0f} MB at {ends['first']} px and "
    note += (
        f"{ends['step_mb_last']:.0f} MB at {ends['last']} px; its exponent is {whole + less:.2f}."
    )
    more = {"direction": -1, "unit": "exponent", "note": note}
    finding = Finding(
        "exponent of memory in the area, IPS less whole image", less, low, high, **more
    )
study.finding(finding, figure="sides")

# %% [markdown]
# ## Reading

# %%
ends = reached.set_index(["way", "step"])
ips, train = ends.loc[("ips", "train")], ends.xs("train", level="step")
area = (ips["last"] / ips["first"]) ** 2
step_growth = ips["step_mb_last"] / ips["step_mb_first"]
peak_growth = ips["peak_mb_last"] / ips["peak_mb_first"] - 1
if step_growth < 1.1:
    verdict = "The claim holds: memory does not depend on image size."
elif step_growth < area**0.25:
    verdict = "It is not constant to the letter, and far from growing with the area or the side."
else:
    verdict = "Here the claim does not hold: memory grows with the image."

# %%
common = int(train["last"].min())
at_common = frame[(frame["side"] == common) & (frame["step"] == "train")].set_index("way")
times = at_common[["step_mb", "seconds"]] / at_common.loc["ips", ["step_mb", "seconds"]]
others = [way for way in WAY_NAMES if way != "ips"]
beside = "; ".join(
    f"{WAY_NAMES[way]}: {times.loc[way, 'step_mb']:.1f} times the memory and "
    f"{times.loc[way, 'seconds']:.1f} times the time of IPS"
    for way in others
)
over = ", ".join(f"{WAY_NAMES[way]} {train.loc[way, 'over_roofline']:.1f}" for way in WAY_NAMES)
no_further = all(train.loc[way, "last"] == ips["last"] for way in others)
blank = 100 * pd.DataFrame(images).set_index("side")["blank_share"]

# %%
Markdown(f"""
1. From {ips["first"]} to {ips["last"]} px an image's area grows {area:,.0f} times. The memory of
   an IPS training step goes from {ips["step_mb_first"]:.0f} to {ips["step_mb_last"]:.0f} MB
   ({step_growth:.2f} times), the peak of its process from {ips["peak_mb_first"]:.0f} to
   {ips["peak_mb_last"]:.0f} MB ({100 * peak_growth:+.0f} %). {verdict}
2. With {memory_limit_mb:,} MB, training reaches: {
    "; ".join(reach_in_words(reached, way) for way in WAY_NAMES)
}. {"No way failed: these sides do not tell them apart." if no_further else ""}
3. At {common} px, the largest side that all reached, {beside}.
4. Time is not decoupled: over the range of point 1 IPS needs
   {ips["seconds_last"] / ips["seconds_first"]:.1f} times as long for an image.
5. Training at the largest side that each reached takes, in multiples of its roofline: {over}.
6. Classifying, which keeps nothing for gradients, reaches: {
    "; ".join(reach_in_words(reached, way, "classify") for way in WAY_NAMES)
}.
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
