"""Run names in the published convention, written from a configuration and read back.

`results_{digit}_{digit}_{height}_{width}_{noise}n_{train}d` and then what is special:
`_PS_25` patch size, `_K_10_P_02` masking, `_W_3` diversity weight (with the semantic loss),
`_Res_50_V2` backbone, `_1_6` stroke width, `_original` line noise, `_seed_2` training seed.
Two published names say `_M_30_P_02` where their logs say K.
A name tells what the published study varied, not every field: identity is `RunConfig.id`.
"""

import re

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.errors import IpslibError

_NAME = re.compile(
    r"results_(?P<digit>\d+)_(?P<noise_size>\d+)_(?P<height>\d+)_(?P<width>\d+)"
    r"_(?P<n_noise>\d+)n(?:_(?P<n_train>\d+)d)?"
    r"(?P<generator>_bezier|_original)?"
    r"(?:_PS_(?P<patch>\d+))?"
    r"(?:_[KM]_(?P<k>\d+)_P_(?P<p>\d+))?"
    r"(?:_W_(?P<weight>\d+(?:_\d+)?))?"
    r"(?:_Res_(?P<backbone>18|50)(?:_V(?P<version>[12]))?)?"
    r"(?:_(?P<stroke>\d+_\d+))?"
    r"(?:_seed_(?P<seed>\d+))?"
)
_N_TRAIN_WHEN_UNSAID = 5000  # names without `d` are of the 5000-image runs


def run_name(config: RunConfig) -> str:
    """The run's name in the published convention."""
    data, model, training = config.data, config.model, config.training
    parts = [f"results_{data.short_name}"]
    if isinstance(data, MegapixelMNISTConfig):
        parts += _generator_parts(data)
    if model.mask_k:
        parts.append(f"K_{model.mask_k:02d}_P_{_decimals(model.mask_p)}")
    if training.diversity_weight:
        parts.append(f"W_{training.diversity_weight:g}".replace(".", "_"))
    if model.encoder == "resnet50":
        parts.append("Res_50_V2" if model.weights == "imagenet_v2" else "Res_50")
    elif model.weights != "none":
        parts.append("Res_18")
    if isinstance(data, MegapixelMNISTConfig) and data.stroke_width != 1.925:
        parts.append(f"{data.stroke_width:.4f}".rstrip("0").replace(".", "_"))
        if parts[-1].endswith("_"):
            parts[-1] += "0"
    if training.seed:
        parts.append(f"seed_{training.seed}")
    return "_".join(parts)


def parse_run_name(name: str) -> dict[str, object]:
    """The fields that a published name states, ready for `run_config`."""
    match = _NAME.fullmatch(name)
    if not match:
        raise IpslibError(
            f"{name!r} is no run name; wanted results_{{digit}}_{{digit}}_{{height}}_{{width}}_"
            "{noise}n_{train}d and then _PS_, _K_.._P_, _W_, _Res_, a stroke width or _seed_."
        )
    said = match.groupdict()
    fields: dict[str, object] = {
        "digit_size": int(said["digit"]),
        "noise_size": int(said["noise_size"]),
        "canvas": [int(said["height"]), int(said["width"])],
        "n_noise": int(said["n_noise"]),
        "n_train": int(said["n_train"] or _N_TRAIN_WHEN_UNSAID),
    }
    if said["generator"]:
        fields["noise"] = "line" if said["generator"] == "_original" else "bezier"
    if said["patch"]:
        fields["patch_size"] = int(said["patch"])
    if said["k"]:
        fields["mask_k"] = int(said["k"])
        fields["mask_p"] = float(f"{said['p'][0]}.{said['p'][1:] or 0}")
    if said["weight"]:
        fields["diversity_weight"] = float(said["weight"].replace("_", "."))
        fields["semantic_weight"] = 1.0
    if said["backbone"] == "50":
        version = said["version"] or "1"
        fields |= {"encoder": "resnet50", "weights": f"imagenet_v{version}", "frozen": True}
    elif said["backbone"] == "18":
        fields["weights"] = "imagenet_v1"
    if said["stroke"]:
        fields["stroke_width"] = float(said["stroke"].replace("_", "."))
    if said["seed"]:
        fields["seed"] = int(said["seed"])
    return fields


def _generator_parts(data: MegapixelMNISTConfig) -> list[str]:
    parts = ["original"] if data.noise == "line" else []
    return parts + ([f"PS_{data.patch_size}"] if data.patch_size != 50 else [])


def _decimals(value: float) -> str:
    """0.2 as 02 and 0.05 as 005: the number without its point."""
    text = f"{value:.4f}".rstrip("0")
    return text.replace(".", "").ljust(2, "0")
