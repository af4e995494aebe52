"""`ipslib slides`: draw slides, prepare bags of features, and say what bags there are."""

import argparse

# What does the work is imported when it is called, as in the other commands.


def add_slides_command(commands: argparse._SubParsersAction) -> None:
    """Register `slides` and what it can do."""
    slides = commands.add_parser("slides", help="prepare whole slides, such as CAMELYON16")
    actions = slides.add_subparsers(dest="action", required=True, metavar="ACTION")

    prepare = actions.add_parser("prepare", help="write a bag of features for every slide")
    prepare.add_argument("folder", metavar="FOLDER", help="of slides, searched through")
    prepare.add_argument("out", metavar="OUT", help="folder of the bags")
    prepare.add_argument("--annotations", metavar="FOLDER", help="of ASAP's XML, for patch labels")
    prepare.add_argument("--labels", metavar="CSV", help="such as reference.csv: normal or tumor")
    prepare.add_argument(
        "--groups",
        nargs="+",
        metavar="NAME=WHAT",
        default=[],
        help="own groups of annotations: tumour, normal (cut out of it) or ignore",
    )
    prepare.add_argument("--mpp", type=float, default=0.5, help="microns per pixel (0.5: 20x)")
    prepare.add_argument("--tile", type=int, default=256, help="side of a tile in pixels (256)")
    prepare.add_argument("--overlap", type=int, default=0, help="of tiles, in pixels (0)")
    prepare.add_argument("--min-tissue", type=float, default=0.1, help="share of a tile (0.1)")
    prepare.add_argument(
        "--slide-mpp", type=float, help="microns per pixel of slides that do not state it"
    )
    prepare.add_argument(
        "--backbone", default="resnet50", help="or resnet18, torchvision/NAME, timm/NAME"
    )
    prepare.add_argument(
        "--weights", default="imagenet_v1", help="or imagenet_v2, default, a file, none: random"
    )
    prepare.add_argument("--stages", type=int, default=4, help="of the backbone (4)")
    prepare.add_argument("--reader", default="auto", help="auto, openslide or tifffile")
    prepare.add_argument("--batch", type=int, default=64, help="tiles encoded together (64)")
    prepare.add_argument("--workers", type=int, default=2, help="threads that read tiles (2)")
    prepare.add_argument("--device", default="cpu", help="cpu or cuda")
    prepare.set_defaults(handler=_prepare)

    standin = actions.add_parser("standin", help="draw slides to try everything on")
    standin.add_argument("folder", metavar="FOLDER")
    standin.add_argument("--train", type=int, default=16, help="slides to train on (16)")
    standin.add_argument("--test", type=int, default=8, help="slides to test on (8)")
    standin.add_argument("--side", type=int, default=2048, help="in pixels (2048)")
    standin.add_argument("--seed", type=int, default=0)
    standin.set_defaults(handler=_standin)

    check = actions.add_parser("check", help="count bags, their patches and their labels")
    check.add_argument("bags", metavar="BAGS", help="folder of bags, or a file of them")
    check.add_argument("--labels", metavar="CSV", help="such as reference.csv: normal or tumor")
    check.add_argument("--rows", action="store_true", help="read every row too, in search of NaN")
    check.set_defaults(handler=_check)


def _prepare(arguments: argparse.Namespace) -> int:
    from ipslib.datasets.slides.camelyon16 import find_slides, read_labels
    from ipslib.datasets.slides.prepare import (
        BackboneConfig,
        TileConfig,
        known_annotations,
        prepare_slides,
    )

    groups, slides = _groups(arguments.groups), find_slides(arguments.folder)
    table = read_labels(arguments.labels) if arguments.labels else {}
    prepared = prepare_slides(
        slides,
        arguments.out,
        tiles=TileConfig(
            tile_size=arguments.tile,
            mpp=arguments.mpp,
            overlap=arguments.overlap,
            min_tissue=arguments.min_tissue,
        ),
        backbone=BackboneConfig(
            backbone=arguments.backbone, weights=arguments.weights, n_stages=arguments.stages
        ),
        annotations=known_annotations(slides, arguments.annotations, table),
        groups=groups,
        slide_mpp=arguments.slide_mpp,
        reader=arguments.reader,
        batch_size=arguments.batch,
        workers=arguments.workers,
        device=arguments.device,
    )
    _say(prepared.skipped)
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
    groups = {}
    for each in said:
        name, _, what = each.rpartition("=")
        if not name or what not in meanings:
            raise IpslibError(
                f"--groups: wanted NAME=tumour, normal or ignore, got {each!r}"
                f"{did_you_mean(what, meanings)}."
            )
        groups[name] = meanings[what]
    return groups


def _standin(arguments: argparse.Namespace) -> int:
    from ipslib.datasets.slides.synthetic import write_synthetic

    drawn = write_synthetic(
        arguments.folder,
        n_train=arguments.train,
        n_test=arguments.test,
        side=arguments.side,
        seed=arguments.seed,
    )
    print(f"drawn, not real: {drawn.images}, {drawn.annotations}, {drawn.reference}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ipslib.datasets.slides.bags import label_bags, open_bags
    from ipslib.datasets.slides.camelyon16 import split_of

    bags, unreadable = open_bags(arguments.bags, every_row=arguments.rows)
    labels, skipped = label_bags(bags, arguments.labels or None)
    _say(unreadable | skipped)
    for split in ("train", "test", None):
        names = [name for name in labels if split_of(name) == split]
        if names:
            sizes = [bags[name].n_patches for name in names]
            least, middle, most = (round(n) for n in np.quantile(sizes, (0, 0.5, 1)))
            n_tumour = sum(labels[name] for name in names)
            n_located = sum(bags[name].patch_labels is not None for name in names)
            print(
                f"{split or 'other'}: {len(names)} bags, {n_tumour} with tumour; patches {least} "
                f"to {most}, median {middle}; patch labels in {n_located}"
            )
    return int(bool(unreadable or skipped))


def _say(skipped: dict[str, str]) -> None:
    for reason in skipped.values():
        print(reason)
