"""`ipslib train`, `predict` and `map`: images of one's own from a terminal, in Python's words."""

import argparse
import inspect
import re
import sys
from io import BytesIO

from ipslib.errors import IpslibError

_REMEDIES = (
    "more --epochs or images, a --patch-size of about the objects', another --memory-size or --lr, "
    "or --semantic-weight 1"
)
# What does the work is imported when it is called, as in the other commands.


def add_image_commands(commands: argparse._SubParsersAction, chosen: str) -> None:
    """Register the three; of `train` every flag where it is the one chosen, since to know the
    fields takes seconds."""
    does = "train on the images that a CSV names; called again, it goes on"
    usage = "ipslib train CSV --folder FOLDER [--FIELD VALUE ...]"
    options = {"usage": usage, "argument_default": argparse.SUPPRESS}
    train = commands.add_parser("train", help=does, **options)
    train.set_defaults(handler=_train)
    if chosen == "train":
        _add_fields(train)

    model = {"metavar": "MODEL", "help": "a file that `train` wrote"}
    device = {"metavar": "DEVICE", "default": "cpu", "help": "cpu or cuda (cpu)"}
    predict = commands.add_parser("predict", help="say what is on images")
    predict.set_defaults(handler=_predict)
    predict.add_argument("model", **model)
    predict.add_argument("images", metavar="IMAGE", nargs="+")
    predict.add_argument("--csv", metavar="FILE", help="takes the table, in place of the screen")
    predict.add_argument("--device", **device)

    show = commands.add_parser("map", help="show where in an image the network looks")
    show.set_defaults(handler=_map)
    show.add_argument("model", **model)
    show.add_argument("image", metavar="IMAGE")
    show.add_argument("--html", metavar="FILE", help="a page to zoom and pan")
    show.add_argument("--geojson", metavar="FILE", help="the kept patches, for QuPath")
    show.add_argument("--png", metavar="FILE", help="a figure")
    show.add_argument("--task", help="of the figure and the patches (the mean over all)")
    show.add_argument("--head", type=int, help="likewise, from 0 (the mean over all)")
    show.add_argument("--device", **device)


def _add_fields(train: argparse.ArgumentParser) -> None:
    """A flag for every argument of `train_images` and every field that it takes."""
    import attrs

    from ipslib.config import ModelConfig, TrainingConfig
    from ipslib.datasets.images.config import OwnImagesConfig
    from ipslib.fields import LARGEST
    from ipslib.runs.profiles import parse_value
    from ipslib.runs.train_images import DEFAULTS, train_images

    said = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(train_images), re.MULTILINE)
    helps = {name: " ".join(text.split()).replace("%", "%%") for name, text in said}
    for name, argument in inspect.signature(train_images).parameters.items():
        if argument.kind is argument.POSITIONAL_OR_KEYWORD:
            train.add_argument(name, metavar="CSV", help=helps[name])
        elif argument.kind is argument.KEYWORD_ONLY:
            several = {"nargs": "+"} if "Sequence" in str(argument.annotation) else {}
            needed = argument.default is argument.empty
            train.add_argument(_flag(name), required=needed, help=helps[name], **several)
    sections = {"images": OwnImagesConfig, "model": ModelConfig, "training": TrainingConfig}
    for section, of in sections.items():
        group = train.add_argument_group(section)
        for field in (field for field in attrs.fields(of) if not field.inherited):
            default = DEFAULTS.get(field.name, field.default)
            default = "from other fields" if isinstance(default, attrs.Factory) else default
            wanted = field.metadata.get("wanted", "as in Python").removesuffix(f" to {LARGEST}")
            group.add_argument(
                _flag(field.name),
                type=str if field.type is str else parse_value,
                metavar="VALUE",
                help=f"{wanted} ({default})",
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _train(arguments: argparse.Namespace) -> int:
    from scipy.stats import binom

    from ipslib.paths import from_here
    from ipslib.runs.train_images import train_images

    of_parser = ("command", "handler", "valid")
    trained = train_images(**{k: v for k, v in vars(arguments).items() if k not in of_parser})
    path = from_here(arguments.folder) / "model.ipslib"
    replaces = " (in place of an earlier one)" if path.exists() else ""
    model, n_test = trained.save(path), trained.record["result"]["n_test"]
    for task, accuracy in trained.accuracy.items():
        chance = trained.chance[task]
        by_luck = f"{100 * chance:.1f} % by chance"
        print(f"{task}: {100 * accuracy:.1f} % of {n_test} test images right, {by_luck}")
        if accuracy <= binom.ppf(0.975, n_test, chance) / n_test:
            print(f"{task}: no better than chance; try {_REMEDIES}")
    for task in trained.config.data.numbers:
        measures = trained.measures.items()
        of_task = [f"{name} {each[task]:.3g}" for name, each in measures if task in each]
        print(f"{task}: {', '.join(of_task)} on the test images")
    print(f"model: {model}{replaces}")
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    import pandas as pd
    from tqdm import tqdm

    from ipslib.paths import from_here, write_atomically
    from ipslib.runs.trained_images import load

    model, tables, left_out = load(arguments.model, device=arguments.device), [], []
    for image in tqdm(arguments.images, unit="image", disable=None):
        try:
            tables.append(model.predict(image))
        except IpslibError as error:
            left_out.append(f"left out: {error}")
    print(*left_out, sep="\n", end="\n" * bool(left_out), file=sys.stderr)
    table = pd.concat(tables) if tables else pd.DataFrame()
    if arguments.csv:
        path = write_atomically(from_here(arguments.csv), table.to_csv(index=False))
        print(f"images: {len(tables)}; table: {path}")
    elif tables:
        print(table.to_string(index=False))
    return int(bool(left_out))


def _map(arguments: argparse.Namespace) -> int:
    from ipslib.paths import from_here, write_atomically
    from ipslib.runs.trained_images import load

    outputs = [arguments.html, arguments.geojson, arguments.png]
    if not any(outputs):
        raise IpslibError("map: wanted a file to write as --html, --geojson or --png, got none.")
    part = {"task": arguments.task, "head": arguments.head}
    if not any(outputs[1:]) and any(each is not None for each in part.values()):
        raise IpslibError("map: --task and --head are of --geojson and --png; a page shows all.")
    model, image = load(arguments.model, device=arguments.device), arguments.image
    attention = model.attention(image)
    if arguments.png:
        figure = model.attention_map(image, attention=attention, **part)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=150)
        write_atomically(from_here(arguments.png), content.getvalue())
    if arguments.geojson:
        model.to_geojson(image, arguments.geojson, attention=attention, **part)
    if arguments.html:
        model.attention_page(image, arguments.html, attention=attention)
    for task, answer in attention.answers.items():
        print(f"{task}: {answer}")
    print(*(from_here(path) for path in outputs if path), sep="\n")
    return 0
