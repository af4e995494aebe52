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
# # 12 - Is a tumour found on a whole slide?
#
# **Claim** (arXiv 2210.13007): Iterative Patch Selection (IPS) classifies whole slides, bags of up
# to 250 000 patches, from the M patches that it keeps, in memory that does not grow with the slide.
#
# **Published**: trained on CAMELYON16 with M = I = 5000 for 50 epochs, judged by slide AUC. The
# dissertation (arXiv 2412.11237) trained nothing on CAMELYON16: no number stands beside ours.
#
# **What would refute it**: an AUC whose interval holds 50 %, that of chance; an AUC that keeping
# all patches clearly raises; or patches kept of many that hold tumour no more often than patches
# drawn blindly.
#
# **From slides to bags**: the slides are at `s3://camelyon-dataset/CAMELYON16`, about 700 GB. Put
# `images`, `annotations` and `reference.csv` into `data/camelyon16`, then
#
# ```bash
# python -m ipslib slides prepare data/camelyon16/images data/camelyon16/bags \
#     --annotations data/camelyon16/annotations --labels data/camelyon16/reference.csv --device cuda
# python -m ipslib slides check data/camelyon16/bags --labels data/camelyon16/reference.csv
# ./run_all.sh paper 12
# ```
#
# Bags of CLAM, TRIDENT, STAMP, ACMIL and IPS are read as they are, with the slides' classes where
# they hold them (ACMIL, IPS). With no `bags` named, the notebook draws **SYNTHETIC** slides: small
# ones that show that every step works, and nothing about real ones.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
slides = ""  # folder of slides, for pictures
bags = ""  # folder of their bags of features; empty: synthetic slides are drawn
labels = ""  # CSV of the test slides' labels, such as reference.csv
annotations = ""  # folder of ASAP's XML, for pictures and FROC
standin = {"n_train": 16, "n_test": 12, "side": 768, "mpp": 2.5, "tile_size": 32}  # px, µm/px
settings = {  # of every run
    "width": 1.0,
    "position_encoding": False,
    "memory_size": 32,
    "batch_size": 4,
    "epochs": 12,
    "novelty_epochs": 0,
    "eval_every": 4,
}
ways = {"IPS M 32": {}, "all patches": {"memory_size": 1000}}  # no slide has 1000
seeds = [0, 1]  # of training
slide = "test_502"  # which test slide is shown
radius = 200  # µm: of detections nearer than this the best counts
overrides = {}  # any other field of RunConfig, for every run, such as {"lr": 0.0005}

# %%
from contextlib import suppress

import attrs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.collections import PatchCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from sklearn.metrics import roc_curve

from ipslib import IpslibError, attention_of, attention_page, to_geojson
from ipslib.datasets.slides.annotations import read_asap
from ipslib.datasets.slides.bags import describe_bags
from ipslib.datasets.slides.evaluation import (
    FALSE_POSITIVE_RATES,
    answer_slides,
    detections,
    froc,
    measure_found,
)
from ipslib.datasets.slides.prepare import find_tissue
from ipslib.datasets.synthetic import NOTE, titled
from ipslib.study import (
    ATTENTION_COLOURS,
    BOX_COLOUR,
    CHANCE_LINE,
    PUBLISHED,
    Study,
    arm_colours,
    attention_values,
    auc_interval,
    bare,
    colour_bar,
    find_material,
    heat_map,
    row_legend,
    run_arms,
    show,
)

material = find_material(slides, bags, labels, annotations, standin=standin)
data = describe_bags(material.bags, material.labels)
base = {"dataset": "slides", "encoder": "features"} | attrs.asdict(data) | settings
study = Study("12_camelyon16", profile, base=base, overrides=overrides)
warning = NOTE if material.is_synthetic else ""  # stands above every table of synthetic slides
study

# %% [markdown]
# ## The slides
# Official training and test set. *Tumour patches*: the median share of a tumour slide's patches
# that are tumour to more than half.

# %%
sets = {split: study.base.data.open_split(split) for split in ("train", "test")}
rows = []
for split, slide_set in sets.items():
    all_bags = [slide_set[i] for i in range(len(slide_set))]
    sizes = [bag.n_patches for bag in all_bags]
    known = [
        bag.patch_labels.float().mean().item() for bag in all_bags if bag.patch_labels is not None
    ]
    shares = [share for share in known if share]
    row = {"set": split, "slides": len(all_bags), "with_tumour": int(slide_set.labels.sum())}
    row |= {"fewest_patches": min(sizes), "median": int(np.median(sizes)), "most": max(sizes)}
    rows.append(row | {"tumour_patches": np.median(shares) if shares else np.nan})
counts = pd.DataFrame(rows)
study.save_table("bags", counts)
show(counts, caption=warning)

# %% [markdown]
# What was left out, and why: a label without a slide, a slide without a label, a bag that cannot be
# read, and the two slides that CAMELYON16 itself withdrew.

# %%
skipped = sets["train"].skipped | sets["test"].skipped
Markdown("\n".join(f"- {reason}" for reason in skipped.values()) or "Nothing was left out.")

# %% [markdown]
# ## From a slide to a bag
# Tissue has colour, glass has none. Tiles of one size in microns are laid over the tissue, and a
# frozen network turns each into a row of features. Training sees these rows, never the slide.

# %%
HALO = [withStroke(linewidth=2.5, foreground="#00000090")]
COLOUR_STEP = 8  # of 255: what is finer is noise, which takes most of a picture's bytes


def overview(of_slide):
    """The slide, 400 pixels long, in steps of colour from the one that it has most of."""
    picture = of_slide.overview(max(of_slide.shape) * of_slide.mpp / 400)
    ground = np.median(picture, axis=(0, 1))
    steps = np.round((picture - ground) / COLOUR_STEP)
    return np.clip(ground + steps * COLOUR_STEP, 0, 255).astype(np.uint8)


def draw_slide(ax, outlines=()):
    """The slide on axes in its own pixels, with outlines of tumour."""
    ax.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
    for corners in outlines:
        outline = Polygon(corners, fill=False, edgecolor=BOX_COLOUR, linewidth=1.3)
        outline.set(path_effects=HALO, zorder=3)
        ax.add_patch(outline)
    ax.set(xlim=(0, width), ylim=(height, 0))
    bare(ax)


# %%
test = sets["test"]
bag, shown = test[test.names.index(slide)], material.open_slide(slide)
tumour = read_asap(material.outlines[slide]).tumour if slide in material.outlines else []


def draw_tiles(ax):
    is_tumour = (
        np.zeros(bag.n_patches, bool) if bag.patch_labels is None else bag.patch_labels.numpy()
    )
    for which, colour, width in ((~is_tumour, "#333333", 0.3), (is_tumour, PUBLISHED, 1.4)):
        size = bag.size_level0
        tiles = [Rectangle(tuple(corner), size, size) for corner in bag.coords()[which]]
        ax.add_collection(PatchCollection(tiles, fc="none", ec=colour, lw=width))


# %%
if shown:
    tissue, picture = find_tissue(shown), overview(shown)
    height, width = shown.shape
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.5 * height / width + 0.7))
    for ax, title in zip(panels, ["slide", "tissue", f"{bag.n_patches} tiles"], strict=True):
        draw_slide(ax, tumour if title == "slide" else ())
        ax.set_title(title)
    shade = np.where(tissue[..., None], 0, [0.25, 0.25, 0.25, 0.8])
    panels[1].imshow(shade, extent=(0, width, height, 0))
    draw_tiles(panels[2])
    keys = {"outline of the tumour": BOX_COLOUR, "tile": "#333333", "tile of tumour": PUBLISHED}
    lines = [Line2D([], [], color=colour, label=label) for label, colour in keys.items()]
    figure.legend(handles=lines, loc="outside lower left", ncols=3)
    figure.suptitle(titled(slide, material.is_synthetic))
    study.save_figure("slide", figure)

# %% [markdown]
# ## The runs

# %%
records, frame = run_arms(study, ways, seeds)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# Each network answers every test slide, and every patch of it alone.

# %%
by_id = {record["id"]: record for record in records}
rows, answers, curves = [], {}, {}
for run in frame.itertuples():
    key, record = (run.arm, run.id), by_id[run.id]
    answers[key] = answer_slides(study.store.load_network(record), test)
    row = {"way": run.arm, "accuracy": run.accuracy, "chance": run.chance, "auc": run.auc}
    row |= measure_found(answers[key], test)._asdict()
    with suppress(IpslibError):  # nothing is known of where metastases are
        curves[key] = froc(detections(answers[key], test, material.outlines, radius=radius))
    row["froc"] = curves[key].score if key in curves else np.nan
    rows.append(row | {"seconds": record["timing"]["training_seconds"]})
measured = pd.DataFrame(rows)

# %% [markdown]
# ## The table
# Last epoch, test slides, means over seeds. *AUC* of slides: its interval says what other slides
# would give. *AUC of patches*: tumour patches told from normal ones, over all slides, each patch
# judged as if the slide were it alone; *by attention* within a tumour slide, by the attention that
# selects. *FROC*: mean share of metastases found at ¼ to 8 false positives a slide. *Kept that are
# tumour*: on tumour slides, beside patches drawn blindly.

# %%
by_way = measured.groupby("way", sort=False)
table = by_way.mean()
table.insert(0, "n", by_way.size())
n_tumour = int(test.labels.sum())
bounds = [auc_interval(auc, n_tumour, len(test) - n_tumour) for auc in table["auc"]]
table["auc_low"], table["auc_high"] = np.transpose(bounds)
study.save_table("summary", table.reset_index())

# %%
HEADINGS = {
    "auc": "AUC (%)",
    "patch_auc": "AUC of patches (%)",
    "attention_auc": "by attention (%)",
    "froc": "FROC (%)",
    "kept_tumour": "kept that are tumour (%)",
    "kept_tumour_random": "blindly (%)",
}
in_percent = (100 * table[list(HEADINGS)]).round(1).rename(columns=HEADINGS)
in_percent.insert(1, "low", table["auc_low"])  # shown as one interval
in_percent.insert(2, "high", table["auc_high"])
whole = table[["n", "accuracy", "chance"]].join(in_percent)
whole["training (s)"] = table["seconds"].round(1)
show(whole.reset_index(names="kept patches"), caption=warning)

# %% [markdown]
# ## The curves
# A line a run; the reference is dashed, so that both are seen. On the left chance is the diagonal.

# %%
styles = {
    way: {"color": c, "alpha": 0.75} for way, c in zip(ways, arm_colours(len(ways)), strict=True)
}
styles[next(iter(ways))]["linestyle"] = (0, (4, 1.5))


def draw_curves(roc, free):
    for key, of_run in reversed(answers.items()):  # the reference on top
        labels_of, scores = [a.label for a in of_run], [a.score for a in of_run]
        false, true, _ = roc_curve(labels_of, scores, drop_intermediate=False)
        roc.plot(100 * false, 100 * true, **styles[key[0]])
        if curve := curves.get(key):
            share = 100 * curve.sensitivity
            free.step(curve.false_positives, share, where="post", **styles[key[0]])
    roc.plot([0, 100], [0, 100], **CHANCE_LINE)


# %%
figure, (roc, free) = plt.subplots(1, 2, figsize=(10.5, 4.2))
draw_curves(roc, free)
roc.set(title="slides", xlabel="normal slides called tumour (%)", ylim=(0, 102), xlim=(-1, 101))
roc.set_ylabel("tumour slides called tumour (%)")
free.set(title="metastases", xlabel="false positives a slide", ylim=(0, 102))
free.set_ylabel("metastases found (%)")
free.set_xscale("symlog", linthresh=FALSE_POSITIVE_RATES[0])
free.set_xlim(-0.01, 2 * FALSE_POSITIVE_RATES[-1])
free.set_xticks([0, *FALSE_POSITIVE_RATES], ["0", "¼", "½", "1", "2", "4", "8"])
free.minorticks_off()
lines = [Line2D([], [], label=way, **style) for way, style in styles.items()]
row_legend(figure, [*lines, Line2D([], [], label="chance", **CHANCE_LINE)])
figure.suptitle(titled("test slides", material.is_synthetic), x=0.99, ha="right")
study.save_figure("curves", figure)

# %% [markdown]
# ## Where does it look?
# The first run on one slide: attention over all its patches by rank, and the probability of tumour
# of every patch alone. The outline is the annotator's.

# %%
first = next(iter(answers))
answer = next(each for each in answers[first] if each.name == slide)


def draw_map(scores, scale, what):
    """The slide beside itself with its patches coloured, the tumour outlined on both."""
    pixels = picture.shape[:2]
    heat = heat_map(scores, bag.coords(), bag.size_level0, shown.shape, pixels=pixels)
    figure, axes = plt.subplots(1, 2, figsize=(9.3, 4.2 * height / width + 0.5))
    for ax in axes:
        draw_slide(ax, tumour)
    style = {"cmap": ATTENTION_COLOURS, "alpha": 0.6, "interpolation": "nearest", "zorder": 2}
    extent = (0, width, height, 0)
    colours = axes[1].imshow(heat, extent=extent, vmin=0, vmax=1, **style)
    colour_bar(figure, colours, list(axes), scale)
    figure.suptitle(titled(f"{slide}, {what}, {first[0]}", material.is_synthetic))
    study.save_figure(f"map_{what}", figure)


if shown:
    draw_map(attention_values(answer.attention), "rank", "attention")
    draw_map(answer.tumour, "score", "tumour")

# %% [markdown]
# The patches that it kept, by attention: as a page to zoom into the slide, and as GeoJSON for
# QuPath. Boxes hold the annotator's outlines.

# %%
if shown:
    network, this = study.store.load_network(by_id[first[1]]), test.names.index(slide)
    seen = attention_of(network, test.batch([this]), classes={"tumour": ["normal", "tumour"]})
    around = [(*line.min(axis=0)[::-1], *np.ptp(line, axis=0)[::-1]) for line in tumour]
    known = {"boxes": np.array(around)} if around else {}
    path, title = study.layout.figures / "12_page.html", titled(slide, material.is_synthetic)
    attention_page(shown, seen, path, title=title, box_name="tumour", **known)
    to_geojson(seen, path.with_name("12_patches.geojson"))
links = (
    "[12_page.html](../figures/12_page.html), [12_patches.geojson](../figures/12_patches.geojson)"
)
Markdown(f"Beside the figures: {links}." if shown else "No slide is at hand.")

# %% [markdown]
# ## Reading
# Chance is an AUC of 50 %. Accuracy needs a threshold that fits, which the AUC does not.

# %%
above = table.index[table["auc_low"] > 0.5]
times = table["kept_tumour"] / table["kept_tumour_random"]
Markdown(f"""
{warning and f"**{warning}.**"}

1. The interval of the AUC lies above chance for: {
    "; ".join(above) or "none (it cannot be told)"
}. AUC of {len(test)} test slides: {
    "; ".join(f"{way} {100 * auc:.0f} %" for way, auc in table["auc"].items())
}.
2. Kept patches of a tumour slide are tumour, in multiples of blindly drawn ones: {
    "; ".join(f"{way} {x:.1f}" for way, x in times.dropna().items()) or "not known"
}.
3. AUC of patches, alone and by attention: {
    "; ".join(
        f"{r.Index} {100 * r.patch_auc:.0f} % and {100 * r.attention_auc:.0f} %"
        for r in table.dropna(subset="patch_auc").itertuples()
    )
    or "not known"
}.
4. Metastases found (FROC): {
    "; ".join(f"{way} {100 * x:.0f} %" for way, x in table["froc"].dropna().items()) or "not known"
}.
""")

# %% [markdown]
# ## Limits
# - A drawn tumour differs from its tissue in colour, which a network of random weights keeps:
#   it is far easier than any metastasis. Real slides need features of a pretrained network.
# - A slide of fewer than M patches keeps all of its own, so that slides which share a batch can
#   keep unequal numbers. *All patches* holds every row of a batch in memory at once, which is what
#   IPS is there to avoid.
# - The probability of a patch alone asks the network what it was never trained on, a slide of one
#   patch. It can be compared between slides, which attention cannot.
# - The interval of the AUC is over test slides and leaves out what another seed would give; with
#   few slides it is wide whatever the runs.
# - Slides whose tumour is not outlined exhaustively are left out of all measures of patches.
