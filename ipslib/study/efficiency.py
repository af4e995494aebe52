"""Time and memory against image side: measurements made one at a time, each in a fresh process,
and kept, so that a second execution reuses them."""

import hashlib
import itertools
import json
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import pandas as pd
import torch

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.runs.executors import WorkerDied, do_alone
from ipslib.runs.provenance import provenance
from ipslib.study.efficiency_step import (
    DONE,
    ERROR,
    OUT_OF_TIME,
    STEPS,
    VARIANTS,
    Measurement,
    measure,
    measure_rates,
)

SCHEMA = 1
NOT_TRIED = "not tried"


class Efficiency(NamedTuple):
    """What was measured: a row per variant, step (of STEPS) and side.

    `seconds`, `operations` and `roofline_seconds` are an image's, `peak_mb` (of the process) and
    `step_mb` (beyond what it held before) a batch's; blank where the `outcome` is not DONE.
    """

    frame: pd.DataFrame
    rates: dict[str, float]  # {matmul, conv: operations a second}
    provenance: dict  # of this execution


def measure_sides(
    base: RunConfig,
    sides: Sequence[int],
    folder: Path,
    *,
    memory_limit_mb: int,
    seconds_limit: int,
    n_steps: int,
) -> Efficiency:
    """Measure each variant at growing sides, on the GPU where there is one.

    What fails at one side is not tried at larger ones, which need more.

    Args:
        base: network, batch size and density of objects.
        sides: of square images in pixels.
        folder: where measurements are looked up and written.
        memory_limit_mb, seconds_limit, n_steps: as in `Measurement`.

    Raises:
        IpslibError: a step failed for another reason than its limits.
    """
    limits = {"memory_limit_mb": memory_limit_mb, "seconds_limit": seconds_limit}
    setting, made_by = _machine(base)
    rows = []
    for variant, step in itertools.product(VARIANTS, STEPS):
        outcome = DONE
        for side in sorted(sides):
            config, record = at_side(base, side), {"result": {"outcome": NOT_TRIED}}
            if outcome == DONE:
                wanted = {"variant": variant, "step": step, "config": config, "n_steps": n_steps}
                record = _measured(Measurement(**wanted, **limits, **setting), folder, made_by)
                outcome = record["result"]["outcome"]
            rows.append({"variant": variant, "step": step, "side": side} | _numbers(config, record))
    frame = pd.DataFrame(rows)
    setting = {"rate": base.training.precision} | setting
    measure_them = partial(_rates_apart, tuple(setting.values()))
    rates = _kept(folder, made_by, setting, "rates", measure_them)["rates"]
    frame["roofline_seconds"] = frame["operations"] / max(rates.values())
    return Efficiency(frame, rates, made_by)


def measure_runs(
    configs: Sequence[RunConfig], folder: Path, *, step: str = "train", **limits: int
) -> pd.DataFrame:
    """Measure a step, one of STEPS, of each configuration as it is: a row each, with the columns of
    `Efficiency` but for variant, side and roofline; `folder`, limits and errors of `measure_sides`.
    """
    setting, made_by = _machine(configs[0])
    wanted = [Measurement(step=step, config=each, **limits, **setting) for each in configs]
    return pd.DataFrame(_numbers(each.config, _measured(each, folder, made_by)) for each in wanted)


def at_side(base: RunConfig, side: int) -> RunConfig:
    """The base on a square canvas of another side, noise objects in proportion to its area."""
    height, width = base.data.canvas
    n_noise = round(base.data.n_noise * side**2 / (height * width))
    return base.replace(canvas=side, n_noise=n_noise, n_patterns=base.data.n_patterns)


def measure_apart(measurement: Measurement) -> dict:
    """What `measure` returns in a fresh process, or the `outcome` that its end tells.

    Raises:
        IpslibError: a step failed for another reason than its limits.
    """
    result = do_alone(measure, measurement)
    if isinstance(result, WorkerDied):
        is_late = result.exitcode == -signal.SIGALRM
        return {"outcome": OUT_OF_TIME if is_late else str(result)}
    if result["outcome"] == ERROR:
        side = measurement.config.data.canvas[0]
        raise IpslibError(
            f"{measurement.variant} at {side} px: {measurement.step} failed, though neither memory "
            f"nor time ran out ({result['said']})."
        )
    return result


def _machine(config: RunConfig) -> tuple[dict, dict]:
    """The threads and the device of all measurements, and their provenance."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # As the study's runs on a CPU: two threads would wait for each other where a core is taken.
    threads = 1 if device == "cpu" else torch.get_num_threads()
    return {"threads": threads, "device": device}, provenance(config, device) | {"threads": threads}


def _measured(wanted: Measurement, folder: Path, made_by: dict) -> dict:
    settings = attrs.asdict(wanted, recurse=False) | {"config": wanted.config.changed()}
    # `way` is what a variant is called in measurements that are kept already.
    settings["way"] = settings.pop("variant")
    return _kept(folder, made_by, settings, "result", partial(measure_apart, wanted))


def _rates_apart(setting: tuple[str, int, str]) -> dict[str, float]:
    rates = do_alone(measure_rates, setting)
    if isinstance(rates, WorkerDied):
        raise IpslibError(f"the matrix rate could not be measured: {rates}.")
    return rates


def _kept(folder: Path, made_by: dict, settings: dict, name: str, make: Callable[[], dict]) -> dict:
    """The record, under a hash of some settings and of the device's name, whose `name` is what
    `make` gives; made where none is there that can be read."""
    settings = settings | {"device": made_by["device"]}
    canonical = json.dumps(settings, sort_keys=True)
    identity = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    path = folder / f"{identity}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_text())
        if (record["schema"], record["id"]) == (SCHEMA, identity):
            return record
    record = {"schema": SCHEMA, "id": identity, "settings": settings, name: make()}
    record["provenance"] = made_by
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    return record


def _numbers(config: RunConfig, record: dict) -> dict:
    """A row of the frame: seconds and operations are an image's."""
    size, result = config.training.batch_size, record["result"]
    return {
        "n_patches": config.data.grid.n_patches,
        "batch_size": size,
        "outcome": result["outcome"],
        "n_timed": result.get("n_timed", 0),
        "seconds": result.get("seconds", np.nan) / size,
        "operations": result.get("operations", np.nan) / size,
        "peak_mb": result.get("peak_mb", np.nan),
        "step_mb": result.get("step_mb", np.nan),
        "commit": record.get("provenance", {}).get("commit"),
    }
