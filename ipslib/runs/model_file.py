"""One file with a trained network and all that its use needs: the weights as safetensors, and in
their metadata, as JSON, the run's configuration (with it class names and how images are cut), its
result, and the versions that wrote it. It is read without executing anything in it.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import ipslib
from ipslib.config import ARITHMETIC, WEIGHTS, RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError, reason_of
from ipslib.model.ips import IPSNet
from ipslib.paths import found, from_here, write_atomically
from ipslib.training import build_network

FORMAT = 1


def write_model(
    path: str | Path, config: RunConfig, network: IPSNet, *, arithmetic: int, result: Mapping
) -> Path:
    """Write a network to a file, without the paths of what it was trained on."""
    flat = config.flat() | {"labels": Path(config.data.labels).name, "boxes": ""}
    if flat["weights"] not in WEIGHTS:
        flat["weights"] = f"./{Path(flat['weights']).name}"
    about = {
        "format": FORMAT,
        "ipslib": ipslib.__version__,
        "arithmetic": arithmetic,
        "torch": torch.__version__,
        "config": flat,
        "result": result,
    }
    state = network.state_dict()
    weights = {name: value.cpu().contiguous().clone() for name, value in state.items()}
    about["sha256"] = _digest(about, weights)
    return write_atomically(from_here(path), save(weights, {"ipslib": json.dumps(about)}))


def read_model(
    path: str | Path, *, encoder: nn.Module | None = None
) -> tuple[RunConfig, IPSNet, dict]:
    """The configuration, the network in evaluation mode, and all that its file says of itself.

    Args:
        path: of `write_model`.
        encoder: of one's own, where the network was trained with one; it takes up the weights.

    Raises:
        IpslibError: for what is no such file, torn, changed, of a later format, or of an encoder
            that is not here.
    """
    path = found(path)
    about, weights = _read(path)
    version, ours = about["ipslib"], ipslib.__version__
    if about["arithmetic"] != ARITHMETIC:
        warnings.warn(
            f"{path} is of arithmetic {about['arithmetic']}, and this ipslib computes by "
            f"{ARITHMETIC}: answers may differ.",
            stacklevel=3,
        )
    try:
        config = run_config(about["config"])
        with torch.random.fork_rng(devices=[]):  # whoever opens a file goes on with draws as before
            network = build_network(config, pretrained=False, encoder=encoder)
        network.load_state_dict(weights)
    except (IpslibError, RuntimeError) as error:
        reason = f"its weights are of another encoder ({reason_of(error)})."
        if isinstance(error, IpslibError):
            reason = str(error)
        raise IpslibError(
            f"{path}, written by ipslib {version}, does not open with ipslib {ours}: {reason} If "
            "that cannot be, install the version that wrote it."
        ) from error
    return config, network.eval(), about


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["ipslib"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["format"] > FORMAT:
            raise IpslibError(
                f"{path}: wanted a model of format {FORMAT}, got {about['format']}, which ipslib "
                f"{about['ipslib']} wrote; this is {ipslib.__version__}: install that version."
            )
        is_whole = about.pop("sha256") == _digest(about, weights)
    except (OSError, SafetensorError, LookupError, TypeError, json.JSONDecodeError) as error:
        raise IpslibError(
            f"{path}: wanted a model that ipslib saved, such as FOLDER/model.ipslib of `ipslib "
            f"train`, got another file or a part of one ({reason_of(error)})."
        ) from error
    if not is_whole:
        raise IpslibError(
            f"{path}: wanted a model as it was saved, got one that was changed or damaged since; "
            "copy it again, or save it anew."
        )
    return about, weights


def _digest(about: Mapping, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(f"{name}\0".encode())
        digest.update(weights[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
