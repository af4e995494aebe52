"""`ipslib slides`: draw slides, prepare bags of features, and say what bags there are."""

import argparse

# What does the work is imported when it is called, as in the other commands.


def add_slides_command(commands: argparse._SubParsersAction) -> None:
    """Register `slides` and what it can do; the options of `prepare` go by its settings' names."""
    slides = commands.add_parser("slides", help="prepare whole slides, such as CAMELYON16")
    actions = slides.add_subparsers(dest="action", required=True, metavar="ACTION")
    labels = {"metavar": "CSV", "help": "such as reference.csv: normal or tumor"}
    groups = "own groups of annotations: tumour, normal (cut out of it) or ignore"

    prepare = actions.add_parser("prepare", help="write a bag of features for every slide")
    prepare.set_defaults(handler=_prepare)
    add = prepare.add_argument
    add("folder", metavar="FOLDER", help="of slides, searched through")
    add("out", metavar="OUT", help="folder of the bags")
    add("--annotations", metavar="FOLDER", help="of ASAP's XML, for patch labels")
    add("--labels", **labels)
    add("--groups", nargs="+", metavar="NAME=WHAT", default=[], help=groups)
    add("--mpp", type=float, default=0.5, help="microns per pixel (0.5: 20x)")
    add("--tile", dest="tile_size", type=int, default=256, help="side of a tile in pixels (256)")
    add("--overlap", type=int, default=0, help="of tiles, in pixels (0)")
    add("--min-tissue", type=float, default=0.1, help="share of a tile (0.1)")
    add("--slide-mpp", type=float, help="microns per pixel of slides that do not state it")
    add("--backbone", default="resnet50", help="or resnet18, torchvision/NAME, timm/NAME")
    add("--weights", default="imagenet_v1", help="or imagenet_v2, default, a file, none: random")
    add("--stages", dest="n_stages", type=int, default=4, help="of the backbone (4)")
    add("--reader", default="auto", help="auto, openslide or tifffile")
    add("--batch", dest="batch_size", type=int, default=64, help="tiles encoded together (64)")
    add("--workers", type=int, default=2, help="threads that read tiles (2)")
    add("--device", default="cpu", help="cpu or cuda")

    standin = actions.add_parser("standin", help="draw slides to try everything on")
    standin.set_defaults(handler=_standin)
    add = standin.add_argument
    add("folder", metavar="FOLDER")
    add("--train", type=int, default=16, help="slides to train on (16)")
    add("--test", type=int, default=8, help="slides to test on (8)")
    add("--side", type=int, default=2048, help="in pixels (2048)")
    add("--seed", type=int, default=0)

    check = actions.add_parser("check", help="count bags, their patches and their labels")
    check.set_defaults(handler=_check)
    check.add_argument("bags", metavar="BAGS", help="folder of bags, or a file of them")
    check.add_argument("--labels", **labels)
    check.add_argument("--rows", action="store_true", help="read every row too, in search of NaN")


def _prepare(arguments: argparse.Namespace) -> int:
    from ipslib.datasets.slides import prepare
    from ipslib.datasets.slides.camelyon16 import find_slides, read_labels

    def chosen(*names: str) -> dict:
        return {name: getattr(arguments, name) for name in names}

    groups, slides = _groups(arguments.groups), find_slides(arguments.folder)
    table = read_labels(arguments.labels) if arguments.labels else {}
    prepared = prepare.prepare_slides(
        slides,
        arguments.out,
        tiles=prepare.TileConfig(**chosen("tile_size", "mpp", "overlap", "min_tissue")),
        backbone=prepare.BackboneConfig(**chosen("backbone", "weights", "n_stages")),
        annotations=prepare.known_annotations(slides, arguments.annotations, table),
        groups=groups,
        **chosen("slide_mpp", "reader", "batch_size", "workers", "device"),
    )
    print(*prepared.skipped.values(), sep="\n", end="\n" * bool(prepared.skipped))
    for name, what in prepared.changed.items():
        print(f"{name}: made anew, since this changed: {what}")
    print(
        f"{len(prepared.made)} bags made, {len(prepared.reused)} reused, "
        f"{len(prepared.skipped)} slides left out; in {arguments.out}"
    )
    return int(bool(prepared.skipped))


def _groups(said: list[str]) -> dict[str, bool | None]:
    from ipslib.errors import IpslibError, did_you_mean

    meanings = {"tumour": True, "normal": False, "ignore": None}
    pairs = [each.rpartition("=")[::2] for each in said]
    for name, what in pairs:
        if not name or what not in meanings:
            raise IpslibError(
                f"--groups: wanted NAME=tumour, normal or ignore, got {name}={what}"
                f"{did_you_mean(what, meanings)}."
            )
    return {name: meanings[what] for name, what in pairs}


def _standin(arguments: argparse.Namespace) -> int:
    from ipslib.datasets.slides.synthetic import write_synthetic

    sizes = {"n_train": arguments.train, "n_test": arguments.test, "side": arguments.side}
    drawn = write_synthetic(arguments.folder, **sizes, seed=arguments.seed)
    print(f"drawn, not real: {drawn.images}, {drawn.annotations}, {drawn.reference}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ipslib.datasets.slides.bags import label_bags, open_bags
    from ipslib.datasets.slides.camelyon16 import split_of

    bags, unreadable = open_bags(arguments.bags, every_row=arguments.rows)
    labels, unlabelled = label_bags(bags, arguments.labels or None)
    skipped = unreadable | unlabelled
    print(*skipped.values(), sep="\n", end="\n" * bool(skipped))
    for split in ("train", "test", None):
        if names := [name for name in labels if split_of(name) == split]:
            sizes = [bags[name].n_patches for name in names]
            least, middle, most = (round(n) for n in np.quantile(sizes, (0, 0.5, 1)))
            n_tumour = sum(labels[name] for name in names)
            n_located = sum(bags[name].patch_labels is not None for name in names)
            print(
                f"{split or 'other'}: {len(names)} bags, {n_tumour} with tumour; patches {least} "
                f"to {most}, median {middle}; patch labels in {n_located}"
            )
    return int(bool(skipped))
