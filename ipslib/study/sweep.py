"""Sweeps: many settings of bare runs or of one notebook, from a file, here or on a cluster.

A sweep file is YAML:

    profile: quick                     # its base.yaml is where every run starts
    fixed: {epochs: 6}                 # fields that all settings share
    grid: {digit_size: [20, 28], seed: [0, 1, 2]}   # every combination
    runs: [{digit_size: 40, n_noise: 2}]            # and single settings
    notebook: 01_o2i_datasize          # optional: settings are then its parameters
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml
from tabulate import tabulate

from ipslib.errors import IpslibError, did_you_mean
from ipslib.naming import run_name
from ipslib.study.layout import Layout
from ipslib.study.profiles import base_config, check_profile, load_parameters
from ipslib.study.records import RecordStore
from ipslib.study.runs import Outcome, local_way, run_outcomes


@attrs.frozen
class Sweep:
    """What a sweep file says: a profile, and settings of runs or of a notebook."""

    profile: str
    notebook: str | None
    settings: list[dict[str, Any]]


def read_sweep(path: str | Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        IpslibError: for a missing file, an unknown key, or nothing to do.
    """
    path = Path(path)
    if not path.is_file():
        raise IpslibError(f"there is no sweep file at {path}.")
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise IpslibError(f"{path.name} is not valid YAML: {reason}") from error
    known = ("profile", "fixed", "grid", "runs", "notebook")
    if not isinstance(said, dict):
        raise IpslibError(f"{path.name} must hold 'name: value' lines, see {', '.join(known)}.")
    for key in said:
        if key not in known:
            raise IpslibError(f"{path.name}: unknown key {key!r}{did_you_mean(str(key), known)}.")
    fixed, grid = said.get("fixed") or {}, said.get("grid") or {}
    for name, values in grid.items():
        if not isinstance(values, list):
            raise IpslibError(f"{path.name}: grid: wanted a list for {name}, got {values!r}.")
    combinations = itertools.product(*grid.values()) if grid else ()
    settings = [fixed | dict(zip(grid, values, strict=True)) for values in combinations]
    settings += [fixed | each for each in said.get("runs") or []]
    if not settings:
        raise IpslibError(f"{path.name} names no runs: give it a grid or a list of runs.")
    return Sweep(check_profile(said.get("profile", "quick")), said.get("notebook"), settings)


def run_sweep(path: str | Path, *, jobs: int | None = 1, scheduler: str | None = None) -> int:
    """Run a sweep, print how each run ended, and return the exit status: 1 when one failed.

    Args:
        path: of the sweep file.
        jobs: processes side by side on this machine; 1 runs in this process.
        scheduler: address of a running Dask scheduler, instead of this machine.
    """
    sweep = read_sweep(path)
    if sweep.notebook:
        return _run_notebooks(sweep)
    configs = [base_config(sweep.profile, setting) for setting in sweep.settings]
    store = RecordStore(Layout.of(sweep.profile).records)
    if scheduler:
        from ipslib.study.cluster import cluster_way

        way = cluster_way(scheduler)
    else:
        way = local_way(jobs)
    outcomes = list(run_outcomes(configs, store, way))
    print(_table(outcomes))
    return int(any(each.failure for each in outcomes))


def _table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for config, status, record, failure in outcomes:
        accuracy = record["result"]["accuracy"] if record else {}
        shown = ", ".join(f"{task} {100 * value:.1f} %" for task, value in accuracy.items())
        rows.append([run_name(config), config.id, status, shown or f"{failure.reason}: {failure}"])
    return tabulate(rows, headers=["run", "id", "state", "last epoch on test"])


def _run_notebooks(sweep: Sweep) -> int:
    """Execute a notebook once for each setting; records are shared, the rest lies apart."""
    from ipslib.study.notebooks import check_parameters, execute
    from ipslib.study.profiles import resolve_notebook

    path = resolve_notebook(sweep.notebook)
    plans = [load_parameters(sweep.profile, path) | each for each in sweep.settings]
    for parameters in plans:
        check_parameters(path, parameters)
    home, rows = Layout.of(sweep.profile), []
    for setting, parameters in zip(sweep.settings, plans, strict=True):
        text = json.dumps(parameters, sort_keys=True)
        key = f"{path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        layout = Layout(home.home, key)
        done = execute(path, parameters, layout)
        rows.append([json.dumps(setting), done.state, done.error or layout.notebooks])
    print(tabulate(rows, headers=["setting", "state", "where to look"]))
    return int(any(row[1] != "done" for row in rows))
