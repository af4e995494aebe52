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
    "eval_every": 4,
}
ways = {"IPS M 32": {}, "all patches": {"memory_size": 1000}}  # no slide has 1000
seeds = [0, 1]  # of training
slide = "test_502"  # which test slide is shown
radius = 200  # µm: of detections nearer than this the best counts
overrides = {}  # any other field of RunConfig, for every run, such as {"lr": 0.0005}

# %%
import attrs
from IPython.display import Markdown

from ipslib.datasets.slides.annotations import read_asap
from ipslib.datasets.slides.bags import describe_bags
from ipslib.study.heat_maps import draw_heat_map
from ipslib.study.session import Study
from ipslib.study.slide_figures import finding_curves, slide_overview, slide_to_bag
from ipslib.study.slide_material import find_material
from ipslib.study.slide_runs import (
    bag_table,
    run_slides,
    shown_slides,
    slide_table,
    slides_in_words,
)
from ipslib.study.tables import show

material = find_material(slides, bags, labels, annotations, standin=standin)
data = describe_bags(material.bags, material.labels)
base = {"dataset": "slides", "encoder": "features"} | attrs.asdict(data) | settings
study = Study("12_camelyon16", profile, base=base, overrides=overrides)
study

# %% [markdown]
# ## The slides
# Official training and test set. *Tumour patches*: the median share of a tumour slide's patches
# that are tumour to more than half.

# %%
sets = {split: study.base.data.open_split(split) for split in ("train", "test")}
counts = bag_table(sets)
study.save_table("bags", counts)
show(counts, caption=material.warning)

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
test = sets["test"]
bag, shown = test[test.names.index(slide)], material.open_slide(slide)
tumour = read_asap(material.outlines[slide]).tumour if slide in material.outlines else []
if shown:
    title = material.titled(slide)
    study.save_figure("slide", slide_to_bag(shown, bag, tumour, title=title))

# %% [markdown]
# ## The runs

# %%
runs = run_slides(study, ways, seeds, material, radius=radius)
study.save_table("runs", runs.frame)
Markdown(study.made_of(runs.records))

# %% [markdown]
# ## The table
# Last epoch, test slides, means over seeds. *AUC* of slides: its interval says what other slides
# would give. *AUC of patches*: tumour patches told from normal ones, over all slides, each patch
# judged as if the slide were it alone; *by attention* within a tumour slide, by the attention that
# selects. *FROC*: mean share of metastases found at ¼ to 8 false positives a slide. *Kept that are
# tumour*: on tumour slides, beside patches drawn blindly.

# %%
table = slide_table(runs, test)
study.save_table("summary", table)
show(shown_slides(table), caption=material.warning)

# %% [markdown]
# ## The curves
# A line a run. On the left chance is the diagonal.

# %%
study.save_figure("curves", finding_curves(runs.answered, title=material.titled("test slides")))

# %% [markdown]
# ## Where does it look?
# The first run on one slide: attention over all its patches by rank, and the probability of tumour
# of every patch alone. The outline is the annotator's.

# %%
first = runs.answered[0]
answer = next(each for each in first.answers if each.name == slide)
if shown:
    picture, place = slide_overview(shown), (bag.coords(), bag.size_level0, shown.shape)
    maps = {"rank": ("attention", answer.attention), "score": ("tumour", answer.tumour)}
    for scale, (what, scores) in maps.items():
        title = material.titled(f"{slide}, {what}, {first.way}")
        heat = draw_heat_map(picture, scores, *place, outlines=tumour, scale=scale, title=title)
        study.save_figure(f"map_{what}", heat)

# %% [markdown]
# ## Reading

# %%
Markdown(f"""
{material.warning and f"**{material.warning}.**"}

{slides_in_words(table, len(test))}
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
