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
    r"results_(?P<digit_size>\d+)_(?P<noise_size>\d+)_(?P<height>\d+)_(?P<width>\d+)"
    r"_(?P<n_noise>\d+)n(?:_(?P<n_train>\d+)d)?"
    r"(?P<generator>_bezier|_original)?"
    r"(?:_PS_(?P<patch_size>\d+))?"
    r"(?:_[KM]_(?P<mask_k>\d+)_P_(?P<mask_p>\d+))?"
    r"(?:_W_(?P<weight>\d+(?:_\d+)?))?"
    r"(?:_Res_(?P<backbone>18|50)(?:_V(?P<version>[12]))?)?"
    r"(?:_(?P<stroke_width>\d+_\d+))?"
    r"(?:_seed_(?P<seed>\d+))?"
)
_NUMBERS = ("digit_size", "noise_size", "n_noise", "n_train", "patch_size", "mask_k", "seed")
_N_TRAIN_UNNAMED = 5000  # names without `d` are of the 5000-image runs


def run_name(config: RunConfig) -> str:
    """The run's name in the published convention."""
    data, model, training = config.data, config.model, config.training
    parts = [f"results_{data.short_name}"]
    if isinstance(data, MegapixelMNISTConfig):
        parts += ["original"] * (data.noise == "line")
        parts += [f"PS_{data.patch_size}"] * (data.patch_size != 50)
    if model.mask_k:
        parts.append(f"K_{model.mask_k:02d}_P_{_decimal(model.mask_p, '')}")
    if training.diversity_weight:
        parts.append(f"W_{training.diversity_weight:g}".replace(".", "_"))
    if model.encoder == "resnet50":
        parts.append("Res_50_V2" if model.weights == "imagenet_v2" else "Res_50")
    elif "/" in model.encoder:
        parts.append(model.encoder.replace("/", "_"))
    elif model.weights != "none":
        parts.append("Res_18")
    if isinstance(data, MegapixelMNISTConfig) and data.stroke_width != 1.925:
        parts.append(_decimal(data.stroke_width, "_"))
    if training.seed:
        parts.append(f"seed_{training.seed}")
    return "_".join(parts)


def _decimal(value: float, point: str) -> str:
    """1.6 as 1_6 and 0.05 as 005: at least one digit behind the point, which is written so."""
    whole, behind = f"{value:.4f}".split(".")
    return whole + point + (behind.rstrip("0") or "0")


def parse_run_name(name: str) -> dict[str, object]:
    """The fields that a published name states, ready for `run_config`.

    Raises:
        IpslibError: for a name of another form.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise IpslibError(
            f"{name!r} is no run name; wanted results_{{digit}}_{{digit}}_{{height}}_{{width}}_"
            "{noise}n_{train}d and then _PS_, _K_.._P_, _W_, _Res_, a stroke width or _seed_."
        )
    named = {part: text for part, text in match.groupdict().items() if text}
    fields: dict[str, object] = {"n_train": _N_TRAIN_UNNAMED}
    fields |= {part: int(named[part]) for part in _NUMBERS if part in named}
    fields["canvas"] = [int(named["height"]), int(named["width"])]
    if "generator" in named:
        fields["noise"] = "line" if named["generator"] == "_original" else "bezier"
    if "mask_p" in named:
        fields["mask_p"] = float(f"{named['mask_p'][0]}.{named['mask_p'][1:]}")
    if "weight" in named:
        fields |= {"diversity_weight": _number(named["weight"]), "semantic_weight": 1.0}
    if named.get("backbone") == "50":
        weights = f"imagenet_v{named.get('version', 1)}"
        fields |= {"encoder": "resnet50", "weights": weights, "frozen": True}
    elif "backbone" in named:
        fields["weights"] = "imagenet_v1"
    if "stroke_width" in named:
        fields["stroke_width"] = _number(named["stroke_width"])
    return fields


def _number(text: str) -> float:
    return float(text.replace("_", "."))
