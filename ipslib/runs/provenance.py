"""What a run is called in the published convention, and what a result was made with: code,
versions, machine, memory, the data.

`results_{digit}_{digit}_{height}_{width}_{noise}n_{train}d` and then what is special:
`_PS_25` patch size, `_K_10_P_02` masking, `_W_3` diversity weight (with the semantic loss),
`_Res_50_V2` backbone, `_1_6` stroke width, `_original` line noise, `_seed_2` training seed.
Two published names say `_M_30_P_02` where their logs say K.
A name tells what the published study varied, not every field: identity is `RunConfig.id`.
"""

import hashlib
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torchvision

import ipslib
from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.errors import IpslibError

_NAME = re.compile(
    r"results_(?P<digit_size>\d+)_(?P<noise_size>\d+)_(?P<canvas>\d+_\d+)_(?P<n_noise>\d+)n"
    r"(?:_(?P<n_train>\d+)d)?"
    r"(?:_(?P<noise>bezier|original))?"
    r"(?:_PS_(?P<patch_size>\d+))?"
    r"(?:_[KM]_(?P<mask_k>\d+)_P_(?P<mask_p>\d+))?"
    r"(?:_W_(?P<diversity_weight>\d+(?:_\d+)?))?"
    r"(?:_Res_(?P<backbone>18|50|50_V1|50_V2))?"
    r"(?:_(?P<stroke_width>\d+_\d+))?"
    r"(?:_seed_(?P<seed>\d+))?"
)
_READ = {  # what is no whole number
    "canvas": lambda text: [int(side) for side in text.split("_")],
    "noise": {"bezier": "bezier", "original": "line"}.get,
    "mask_p": lambda text: float(f"{text[0]}.{text[1:]}"),
    "diversity_weight": lambda text: float(text.replace("_", ".")),
    "backbone": str,
    "stroke_width": lambda text: float(text.replace("_", ".")),
}
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
    named = {field: text for field, text in match.groupdict().items() if text}
    fields: dict[str, object] = {"n_train": _N_TRAIN_UNNAMED}
    fields |= {field: _READ.get(field, int)(text) for field, text in named.items()}
    if "diversity_weight" in fields:
        fields["semantic_weight"] = 1.0
    if backbone := fields.pop("backbone", ""):
        fields["weights"] = "imagenet_v2" if backbone == "50_V2" else "imagenet_v1"
        fields |= {"encoder": "resnet50", "frozen": True} if backbone != "18" else {}
    return fields


def provenance(config: RunConfig, device: str) -> dict:
    """Versions, commit, device and what the data are."""
    on_gpu = "cuda" in device
    return {
        "finished": now(),
        "ipslib": ipslib.__version__,
        "commit": code_version(Path(ipslib.__file__).parents[1]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        **({"tf32": torch.backends.cudnn.allow_tf32} if on_gpu else {}),
        **config.data.open_split("train").provenance,
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_version(root: Path) -> str:
    """The commit of the checkout at `root`, marked where files differ from it; of a copy that is
    no checkout itself, though it may lie in one, a hash of the library's code.

    Results that a study writes over the committed ones are not what made them.
    """
    git = ["git", "-C", str(root)]
    changes = [*git, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)outputs"]
    with suppress(OSError, subprocess.SubprocessError):
        if (root / ".git").exists():
            name = [*git, "rev-parse", "--short=12", "HEAD"]
            named = subprocess.run(name, capture_output=True, text=True, timeout=10, check=True)
            changed = subprocess.run(changes, capture_output=True, timeout=10).returncode == 1
            return named.stdout.strip() + "-dirty" * changed
    digest = hashlib.sha256()
    for path in sorted((root / "ipslib").rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return f"code-{digest.hexdigest()[:12]}"


def reset_peak_memory(device: str) -> None:
    """Start a new peak: earlier runs of this process no longer count (Linux and CUDA)."""
    if "cuda" in device:
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: str) -> float:
    """Peak of a CUDA device's allocations, or of this process's resident set, in MB."""
    if "cuda" in device:
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    peak = process_mb("VmHWM")
    if peak is None:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = used * (1 if sys.platform == "darwin" else 1024) / 1e6
    return round(peak, 1)


def process_mb(name: str) -> float | None:
    """A size of this process in MB, such as VmRSS, where the system tells it (Linux)."""
    size = _told("/proc/self/status", name)
    return int(size.split()[0]) * 1024 / 1e6 if size else None


def _processor() -> str:
    return _told("/proc/cpuinfo", "model name") or platform.processor() or "CPU"


def _told(file: str, name: str) -> str | None:
    """The first value of a name in a file of `name: value` lines."""
    with suppress(OSError, StopIteration):
        lines = Path(file).read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith(name))
    return None
