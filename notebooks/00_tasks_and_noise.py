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
# # 00 - What does the task ask, and what is its noise made of?
#
# **Needle MNIST** (Pawlowski et al., arXiv 1908.06037) asks one question of one object: is there a
# 3 among the other digits? **Megapixel MNIST** (Katharopoulos and Fleuret, arXiv 1905.03711) hides
# five digits among strokes that are no digits, on a canvas that may be thousands of pixels wide,
# and asks four questions of them: the class of the `majority`, the largest digit (`max`), the
# topmost (`top`), and all that are present (`multi`).
#
# **Published** (arXiv 2412.11237): noise of Bezier strokes, width 1.925 px on 28 px, instead of the
# original straight lines. Their width was cut to whole pixels before drawing.
#
# Nothing is trained here: this notebook shows the data that all others learn from, and measures
# how the drawn strokes compare with the digits'.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
image = 0  # which test image is shown
needle_canvas = 512  # px, side of the Needle MNIST image
needle_clutter = 30  # clutter digits on it
megapixel_canvas = 1000  # px, side of the Megapixel MNIST images
digit_sizes = [28, 56, 84, 112]  # px; noise objects have the same size
noise_counts = [100, 75, 50, 25]  # noise objects on a canvas, one number a digit size
stroke_widths = [1.0, 1.4, 1.8, 1.925, 2.0, 2.6, 3.0, 4.0, 5.0]  # px on 28 px
n_patterns = 100  # noise patterns and digits that ink is measured on
overrides = {}  # any other field of RunConfig, such as {"digits": "embedded"}

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST, NeedleMNIST
from ipslib.datasets.megapixel_mnist.noise import noise_pool
from ipslib.datasets.megapixel_mnist.scenes import draw_whole
from ipslib.study import Study, example_row, image_row, show

study = Study("00_tasks_and_noise", profile, overrides=overrides)
Markdown(f"Digits: {study.source}.")

# %% [markdown]
# ## The two tasks side by side
# Left: the 3 of Needle MNIST is outlined among digits of other classes. Right: the five digits of
# Megapixel MNIST are outlined among Bezier strokes.

# %%
fields = {"canvas": needle_canvas, "n_clutter": needle_clutter}
needles = NeedleMNIST(digits=study.base.data.digits, split="test", **fields)
drawn = map(needles.objects, range(image, image + 1000))
needle = next(objects for objects, has_needle in drawn if has_needle)

fields = {"n_patterns": n_patterns, "canvas": megapixel_canvas}
settings = study.digit_settings(digit_sizes, noise_counts)
data_sets = [MegapixelMNIST(study.config(**each, **fields).data, "test") for each in settings]
megapixel = data_sets[0]

# %%
titles = [
    f"Needle MNIST, {needle_canvas} px: is there a 3?",
    f"Megapixel MNIST, {megapixel_canvas} px: which digits?",
]
images = [draw_whole([needle], needles.canvas), megapixel.canvas(image)]
boxes = [needle.boxes[0, -1:], megapixel.batch([image]).boxes[0].numpy()]
study.save_figure("tasks", image_row(images, titles, boxes=boxes))

# %% [markdown]
# ## Object-to-image ratio
# The ratio of one digit's area to the canvas's (O2I). Noise objects are as large as digits, and
# fewer where digits are larger.

# %%
titles = [f"{d.config.digit_size} px, O2I {100 * d.config.o2i_ratio:.2g} %" for d in data_sets]
study.save_figure("o2i", example_row(data_sets, titles, image))

# %% [markdown]
# What a network meets on these canvases, over ten images each: N patches, the share of them that
# no object touches, and the share that touches a digit.

# %%
rows = []
for data in data_sets:
    batch = data.batch(range(10))
    on_digit = [len(np.unique(data.grid.incidence(b.numpy())[0])) for b in batch.boxes]
    rows.append(
        {
            "digit_size": data.config.digit_size,
            "o2i_ratio": data.config.o2i_ratio,
            "n_noise": data.config.n_noise,
            "patch_size": data.config.patch_size,
            "n_patches": data.grid.n_patches,
            "blank_share": batch.blank_share,
            "digit_share": np.mean(on_digit) / data.grid.n_patches,
        }
    )
patches = pd.DataFrame(rows)
study.save_table("patches", patches)
show(patches)

# %% [markdown]
# ## Stroke width
# The same curves drawn with a true, anti-aliased width, and as published, cut to whole pixels.


# %%
def strokes(kind: str, width: float, n: int = n_patterns) -> np.ndarray:
    return noise_pool(kind, n, stroke_width=width, key=(0, 0))


shown = [strokes(kind, w, 1)[0] for kind in ("bezier", "bezier_pixel") for w in stroke_widths]
labels = [f"{w:g} px" for w in stroke_widths] + [f"{w:g} px, cut" for w in stroke_widths]
study.save_figure("widths", image_row(shown, labels, columns=len(stroke_widths)))

# %% [markdown]
# Ink is the mean share of the 28 px box that a pattern covers. Widths cut to whole pixels have
# steps only where a whole pixel is reached; the digits' own ink is the dashed line.

# %%
ink = pd.DataFrame(
    {"stroke_width": width, "noise": kind, "ink": strokes(kind, width).mean() / 255}
    for kind in ("bezier", "bezier_pixel")
    for width in stroke_widths
)
digit_ink = data_sets[0].digits.images[:n_patterns].mean() / 255
study.save_table("ink", ink)

figure, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
names = {"bezier": "true width", "bezier_pixel": "cut to whole pixels, as published"}
for marker, style, (kind, name) in zip("os", ("default", "steps-post"), names.items(), strict=True):
    rows = ink[ink["noise"] == kind]
    ax.plot(rows["stroke_width"], 100 * rows["ink"], marker=marker, drawstyle=style, label=name)
ax.axhline(100 * digit_ink, color="0.3", linestyle="--", label="digits")
ax.set(xlabel="stroke width asked for (px on 28 px)", ylabel="ink (% of the box)")
ax.legend()
study.save_figure("ink", figure)

# %% [markdown]
# ## Reading

# %%
levels = ink.groupby("noise")["ink"].agg(lambda values: len(set(values.round(6))))
at_default = {kind: strokes(kind, study.base.data.stroke_width).mean() / 255 for kind in names}
Markdown(f"""
1. Of {len(stroke_widths)} widths asked for, {levels["bezier"]} different strokes are drawn with a
   true width and {levels["bezier_pixel"]} with the published cut.
2. A stroke asked to be {study.base.data.stroke_width:g} px wide covers
   {100 * at_default["bezier_pixel"]:.1f} % of the box as it was drawn and
   {100 * at_default["bezier"]:.1f} % with its true width; a digit covers
   {100 * digit_ink:.1f} %.
3. At O2I {100 * patches["o2i_ratio"].min():.2g} % the five digits touch
   {100 * patches["digit_share"].iloc[0]:.1f} % of {patches["n_patches"].iloc[0]} patches, and
   {100 * patches["blank_share"].iloc[0]:.0f} % of the patches hold nothing at all.
""")

# %% [markdown]
# ## Limits
# - Ink is a mean over patterns; it says how dark a stroke is, not how much it looks like a digit.
# - Needle MNIST is shown, not learned: no result of this study is about it.
