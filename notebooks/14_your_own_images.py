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
# # 14 - How do I train on my own images?
#
# One table that names your images, and one call. What comes back answers for new images, shows
# where it looks, and goes into one file that opens on any machine:
#
# ```python
# from ipslib import load, train_images
#
# trained = train_images("labels.csv", folder="runs", patch_size=100, epochs=30)
# trained.predict(["new.tif"])  # what is on it
# trained.attention_page("new.tif", "page.html")  # where the network looked
# trained.save("model.ipslib")  # elsewhere: load("model.ipslib").predict(["new.tif"])
# ```
#
# This notebook goes through these lines one by one, in about 15 minutes of reading: images and
# labels, the call, what was learned, where it looks, the file, another encoder, and the same from a
# terminal.
#
# **How it works.** An image is cut into patches. The network looks at all of them without learning,
# a few at a time, and keeps the M that it attends to most; it answers, and learns, from these
# alone. Memory depends on M, not on the size of the image.
#
# Set `labels` below to a table of yours and execute the notebook again. Left empty, it **draws an
# example**, which is no result of the study.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
labels = ""  # path of your CSV, from the project's folder; empty: images drawn for this notebook
boxes = ""  # path of a CSV of where in your images the objects are, if you know it
group = ""  # column of what images belong to; empty: one that is called patient or the like
n_drawn = 400  # images of the drawn example
drawn_side = 256  # px, of the largest of them
image = 0  # which test image is shown with its attention
settings = {  # of both runs
    "patch_size": 32,
    "memory_size": 8,
    "iter_size": 16,
    "batch_size": 8,
    "epochs": 15,
    "flips": "both",
    "rotations": True,
    "validation": 0.15,
}
other = {  # of the second run
    "encoder": "torchvision/shufflenet_v2_x0_5",
    "memory_size": 16,
    "iter_size": 64,
    "batch_size": 4,
    "lr": 0.004,
    "epochs": 6,
    "flips": "none",
    "rotations": False,
}
overrides = {}  # any other field of the images, the network or its training

# %%
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from IPython.display import HTML, Markdown
from PIL import Image, ImageDraw

from ipslib import load, train_images
from ipslib.datasets.images.own_images import OwnImages
from ipslib.datasets.synthetic import make_once, stream, synthetic_folder
from ipslib.study import Study, image_row, learning_curves, long_form, show

study = Study("14_your_own_images", profile)

# %% [markdown]
# ## Images and labels
# Each line of the table is an image, and each further column a task. Here the task is `shape`:
#
# ```
# image,shape
# 0000.png,cross
# 0001.tif,disc
# ```
#
# `image` is a path relative to the table: JPEG, PNG, TIFF (large ones are read patch by patch) or
# `.npy`. Images may differ in size and format. A column `split` says which are to train and to test
# on; without one, a fifth of every class is kept for testing. Images of one `patient`, or of
# another column that `group` names, stay together.
#
# The label is of the whole image. Where you also know *where* the object is, a second table says
# it, in pixels from the top left corner. Training never sees it: it is there to measure and show
# whether the network looks at the right place.
#
# ```
# image,x,y,width,height
# 0000.png,120,48,18,18
# ```
#
# **The drawn example**: a cross, a disc or a ring of 18 px among strokes, in images that take turns
# in being PNG, tiled TIFF, `.npy` and JPEG. Where each shape was drawn is known.

# %%
SHAPES, SUFFIXES = ("cross", "disc", "ring"), (".png", ".tif", ".npy", ".jpg")
GROUND, STROKE, SHAPE, SIZE = (200, 190, 170), (90, 105, 140), (170, 35, 30), 18


def draw_image(i):
    """Its pixels (H, W, 3) uint8, and left and top of its shape."""
    random = stream(0, 7, i)
    height, width = random.randint(3 * drawn_side // 4, drawn_side + 1, 2).tolist()
    picture = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(picture)
    for _ in range(25):
        x, y = random.randint(0, width), random.randint(0, height)
        dx, dy = random.randint(-drawn_side // 8, drawn_side // 8 + 1, 2).tolist()
        draw.line((x, y, x + dx, y + dy), fill=STROKE, width=2)
    left, top = random.randint(0, width - SIZE), random.randint(0, height - SIZE)
    draw_shape(draw, SHAPES[i % 3], left, top)
    noise = random.randint(-12, 13, (height, width, 1))
    pixels = np.clip(np.asarray(picture, np.int16) + noise, 0, 255).astype(np.uint8)
    return pixels, (left, top)


def draw_shape(draw, shape, left, top):
    right, bottom = left + SIZE - 1, top + SIZE - 1
    draw.rectangle((left, top, right, bottom), fill=GROUND)
    if shape == "cross":  # its lines are broad: their ends stay inside
        draw.line((left + 2, top + 2, right - 2, bottom - 2), fill=SHAPE, width=3)
        draw.line((left + 2, bottom - 2, right - 2, top + 2), fill=SHAPE, width=3)
    else:
        fill = SHAPE if shape == "disc" else GROUND
        draw.ellipse((left, top, right, bottom), fill=fill, outline=SHAPE, width=3)


# %%
def write(path, pixels):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib", photometric="rgb")
    elif path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, quality=92)


def draw_example(folder):
    shapes, places = ["image,shape"], ["image,x,y,width,height"]
    for i in range(n_drawn):
        name, (pixels, (left, top)) = f"{i:04d}{SUFFIXES[i % 4]}", draw_image(i)
        write(folder / name, pixels)
        shapes.append(f"{name},{SHAPES[i % 3]}")
        places.append(f"{name},{left},{top},{SIZE},{SIZE}")
    for table, lines in {"labels.csv": shapes, "boxes.csv": places}.items():
        (folder / table).write_text("\n".join(lines) + "\n")


# %%
tables = {"labels": labels, "boxes": boxes}
if not labels:
    folder = make_once(synthetic_folder(f"shapes_{n_drawn}_{drawn_side}"), draw_example)
    tables = {"labels": folder / "labels.csv", "boxes": folder / "boxes.csv"}
    pictures, places = zip(*map(draw_image, range(3)), strict=True)
    outlines = [np.array([[top, left, SIZE, SIZE]]) for left, top in places]
    study.save_figure("examples", image_row(pictures, SHAPES, boxes=outlines))
what = f"Images of {Path(labels).name}." if labels else "**Drawn examples**, not photographs."
Markdown(what)

# %% [markdown]
# ## The call
# Everything about images, network and training is a field that the call takes by name. Those that
# you will want to set first:
#
# - `patch_size`: a patch's side in pixels; an object and a little around it.
# - `memory_size`: M, the patches kept. Memory and time follow it; more help where objects are many
#   or hard to find. `iter_size`, how many compete with them at a time, is for speed.
# - `epochs`, `lr`, `batch_size`: of training. Ten epochs or more; where the loss jumps, take a
#   smaller `lr`.
# - `flips`, `rotations`, `brightness`, `colour`: images to train on are changed anew in each epoch.
#   Only what leaves the label true: a turned cross is a cross, a turned 6 is a 9.
# - `validation`: this share of the images to train on is kept apart, and the epoch that does best
#   on them is the one that counts.
# - `class_weights="balanced"`: a rare class counts more; `balanced_sampling="shape"` shows it more
#   often.
# - `several`, `numbers`: the columns that hold several labels an image (`a|b`), or numbers.
# - `encoder`, `weights`: the network that looks at a patch; see below.
#
# All others, and what is refused, are in `ipslib/datasets/images/README.md`.
#
# Checkpoints and the result go to `folder`. The same call again finds it there and trains nothing;
# a run that was stopped goes on. The network is the narrow ResNet-18 of this profile, which a
# laptop trains.

# %%
model = study.base.model
narrow = {"width": model.width, "n_heads": model.n_heads, "dropout": 0.0, "attn_dropout": 0.0}
of_profile = narrow | {"warmup_epochs": study.base.training.warmup_epochs}
fields = tables | {"group": group or None} | of_profile | settings | overrides
trained = train_images(folder=study.layout.records, **fields)
left_out = [f"- left out: {sentence}" for sentence in trained.skipped]
Markdown("\n".join([*trained.notes, "", *left_out]).strip() or "Every image could be read.")

# %% [markdown]
# ## What it learned
# *Accuracy* on the test images stands beside *chance*, the share of the most frequent class.
# *Objects kept*: the share of boxes that a kept patch touches, and what M patches drawn blindly
# would touch; *attention on objects* likewise. Both need boxes.

# %%
MEASURES = ["accuracy", "chance", "roi_recall", "roi_recall_random"]
MEASURES += ["attention_on_digits", "attention_on_digits_random"]
frame = long_form([trained.record])
study.save_table("runs", frame)
table = frame[["task", "n_test", *MEASURES]]
study.save_table("summary", table)
show(table, objects="objects")

# %%
study.save_figure("curves", learning_curves([trained.record], by="patch_size"))

# %% [markdown]
# Training images are turned and mirrored anew in every epoch: they are harder than the test images,
# whose curve may well lie higher.

# %%
kept = trained.record["result"].get("best_epoch", trained.config.training.epochs)
Markdown(f"The network is that of epoch {kept} of {trained.config.training.epochs}.")

# %% [markdown]
# ## New images
# `predict` takes files or arrays of any size, and gives a table: the class, and the probability of
# each. These four are of the test set, so that the truth is known too.

# %%
test, first = OwnImages(trained.config.data, "test"), next(iter(trained.accuracy))
shown = test.names[image : image + 4]
answers = trained.predict(shown)
predicted = answers.assign(image=[Path(name).name for name in answers["image"]])
truth = {Path(name).name: label for name, label in zip(test.names, test.labels(first), strict=True)}
of_first = predicted["task"] == first
predicted.insert(2, "true", predicted["image"].map(truth).where(of_first))
study.save_table("predictions", predicted)
show(predicted)

# %% [markdown]
# ## Where does it look?
# The kept patches of the first one, coloured by the rank of their attention, the best of them as
# pictures below. The box is where the shape is.

# %%
figure = trained.attention_map(test.names[image])
study.save_figure("map", figure)
figure

# %% [markdown]
# **A page to zoom into.** One HTML file, which needs neither a network nor this library: the image
# at any zoom, under the pointer each patch with its attention and what the network would answer to
# it alone, a slider over the M patches, a choice of task and attention head. For a large image this
# is the way to look.

# %%
figures = study.layout.figures
page = trained.attention_page(test.names[image], figures / "14_page.html")
link = f'<p><a href="../figures/{page.name}">{page.name}</a> lies beside the figures:</p>'
HTML(f'{link}<iframe srcdoc="{escape(page.read_text())}" width="100%" height="560"></iframe>')

# %% [markdown]
# **GeoJSON for QuPath** and other viewers: a polygon a kept patch, in pixels of the full
# resolution, with the same numbers as measurements. Drop the file onto the opened image. *Alone* is
# what the network would answer to an image of this patch only: worth reading where attention is
# high, and no more than a guess on a patch that shows nothing.

# %%
patches = trained.to_geojson(test.names[image], figures / "14_patches.geojson")
rows = [
    dict(zip("xy", patch["geometry"]["coordinates"][0][0], strict=True))
    | {"classification": patch["properties"]["classification"]["name"]}
    | patch["properties"]["measurements"]
    for patch in patches["features"]
]
show(pd.DataFrame(rows).head(4), caption=f"The first of {len(rows)} patches in 14_patches.geojson")

# %% [markdown]
# ## Kept in a file, opened elsewhere
# `save` writes weights, classes and how images are cut; no image, and nothing that is executed when
# it is opened. `load` needs the installed library alone, not your images or their table.

# %%
file = trained.save(study.layout.records / "14_model.ipslib")
opened = load(file)
same = "the same to the last bit" if opened.predict(shown).equals(answers) else "**others**"
Markdown(f"""
`{file.name}`, {file.stat().st_size / 1e6:.2f} MB, written by {opened.written_by}. Opened again, its
answers to the {len(shown)} images above are {same}.
""")

# %% [markdown]
# ## Another encoder
# Any network that turns a patch into a vector can look at the patches: `"torchvision/NAME"`,
# `"timm/NAME"` (with `pip install 'ipslib[timm]'`), or, where you train in a loop of your own, any
# module: `IPSNet(..., encoder=module)`, as README.md shows. The rest of the call stays as it is.
#
# What it is for: **photographs**. There, begin with `weights="default"`, what the network learned
# on ImageNet (downloaded once), and train all of it, its last `trained_blocks`, or with
# `frozen=True` only what comes behind it.
#
# Here ShuffleNetV2 starts from drawn weights, so that nothing is downloaded, and for a few epochs
# without augmentation: a check that another network trains by the same call, and no contest of the
# two, which keep other numbers of patches. After so few epochs look at the objects kept and the
# attention on them first: a network has to find the shapes before it can name them. From drawn
# weights prefer one whose batch norms follow quickly: those of MobileNetV3 in torchvision move by
# 1 % a step, most others by 10 %.

# %%
second = train_images(folder=study.layout.records, **fields | {"width": 1.0} | other)
runs = [trained, second]
columns = ["encoder", "epochs", "memory_size", "task", *MEASURES]
both = long_form([run.record for run in runs])[["id", *columns]]
seconds = {run.record["id"]: run.record["timing"]["training_seconds"] for run in runs}
both["seconds"] = both.pop("id").map(seconds)
study.save_table("encoders", both)
show(both, objects="objects")

# %% [markdown]
# ## From a terminal
# The same three steps without Python; a flag is a field of the call in the same words.
#
# ```bash
# ipslib train labels.csv --boxes boxes.csv --folder runs --patch-size 32 --memory-size 8 \
#     --epochs 15 --flips both --rotations true --validation 0.15
# ipslib predict runs/model.ipslib new.tif another.jpg --csv answers.csv
# ipslib map runs/model.ipslib new.tif --html page.html --geojson patches.geojson --png map.png
# ```
#
# `train` shows its progress, goes on where it was stopped, ends by saying accuracy beside chance,
# and writes `runs/model.ipslib`. `ipslib train --help` lists every flag.

# %% [markdown]
# ## Reading

# %%
texts = []
for run in both.itertuples():
    text = f"1. `{run.encoder}`, {run.epochs} epochs, names `{run.task}` rightly in "
    text += f"{100 * run.accuracy:.0f} % of the test images; chance is {100 * run.chance:.0f} %. "
    learned = run.accuracy >= 2 * run.chance
    text += "It has learned to name them." if learned else "**It does not name them yet.**"
    if pd.notna(run.roi_recall):  # boxes are known
        text += f" Its patches touch {100 * run.roi_recall:.0f} % of the objects, where as many "
        text += f"drawn blindly touch {100 * run.roi_recall_random:.0f} %; the objects have "
        text += f"{100 * run.attention_on_digits:.0f} % of the attention, where even attention "
        text += f"would give them {100 * run.attention_on_digits_random:.0f} %."
    texts.append(text)
Markdown("\n".join(texts))

# %% [markdown]
# ## Limits
# - The drawn shapes have a colour that nothing else has: they are easier to find than most objects
#   of real images.
# - One run each, and few test images: the next seed may differ by several points.
# - *Chance* answers the most frequent class. Where classes are uneven, look at balanced accuracy
#   too (`trained.measures`).
# - A network that stays at chance usually needs more images, more epochs or a larger M. *Objects
#   kept* tells which: no more than at random, and the search fails, where a larger M helps most;
#   well above it, and the naming takes longer.
# - The test images are looked at once an evaluation and choose nothing: the last epoch counts, or
#   with `validation` the one that did best on images of its own.
