"""Checkpoints of the original code (the dissertation's and IPS's): opened in one call."""

import re
from pathlib import Path

import torch
from torch import Tensor

from ipslib.config import ModelConfig
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet

_RENAMED = {
    r"transf\.crs_attn\.q_w\.": "pool.to_query.",
    r"transf\.crs_attn\.k_w\.": "pool.to_key.",
    r"transf\.crs_attn\.v_w\.": "pool.to_value.",
    r"transf\.crs_attn\.fc\.": "pool.merge.",
    r"transf\.crs_attn\.fb\.": "pool.branch.",
    r"transf\.crs_attn\.layer_norm\.": "pool.attn_norm.",
    r"transf\.crs_attn\.q$": "pool.query",
    r"transf\.mlp\.w_1\.": "pool.expand.",
    r"transf\.mlp\.w_2\.": "pool.contract.",
    r"transf\.mlp\.layer_norm\.": "pool.mlp_norm.",
    r"output_layers\.(\w+)\.0\.": r"heads.\1.",
}


def load_original(path: str | Path, **changes: object) -> IPSNet:
    """Open an original checkpoint as a network in evaluation mode. To predict with it and to save
    it, `TrainedImages.of(network, patch_size=50, several=["multi"])`: its `multi` are sets.

    Sizes are read off the weights; where the checkpoint has no branch map (the base method), the
    number of heads is the published 8.

    Args:
        path: a state dict as torch saved it; read without executing code.
        changes: fields of ModelConfig that weights do not tell, e.g. `memory_size=100`.

    Raises:
        IpslibError: for a missing or torn file, or a state dict of another shape.
    """
    state = _read(Path(path))
    first, tokens = state.get("encoder.0.weight"), state.get("transf.crs_attn.q")
    got = [None if each is None else tuple(each.shape) for each in (first, tokens)]
    if [len(shape or ()) for shape in got] != [4, 3]:
        raise IpslibError(
            f"{path} holds no original checkpoint: wanted encoder.0.weight of 4 dimensions and "
            f"transf.crs_attn.q of 3, got {got[0]} and {got[1]}; give a file of the original code."
        )
    dim = tokens.shape[2]
    branch = state.get("transf.crs_attn.fb.weight")
    stages = {int(m[1]) for key in state if (m := re.match(r"encoder\.([4-7])\.", key))}
    config = ModelConfig(
        n_stages=len(stages),
        width=first.shape[0] / 64,
        n_heads=8 if branch is None else dim // branch.shape[1],
        **changes,
    )
    renamed = {_rename(key): value for key, value in state.items()}
    n_classes = {
        key.split(".")[1]: len(value)
        for key, value in renamed.items()
        if key.startswith("heads.") and key.endswith(".bias")
    }
    network = IPSNet(config, n_classes, in_channels=first.shape[1])
    renamed.setdefault("pool.branch.weight", network.pool.branch.weight)
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise IpslibError(f"{path} does not fit the original architecture: {reason}") from error
    return network.eval()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise IpslibError(f"There is no checkpoint at {path}; give the path of a .pth file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn archives and foreign pickles raise many kinds
        raise IpslibError(
            f"{path} could not be read as a state dict ({type(error).__name__}); "
            "it may be torn: copy it again."
        ) from error
    is_plain = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    return state if is_plain else {}


def _rename(key: str) -> str:
    for old, new in _RENAMED.items():
        key = re.sub(f"^{old}", new, key)
    return key
