"""Sweeps: many settings of bare runs or of one notebook, from a file, here or on a cluster.

A sweep file is YAML:

    profile: quick                     # its base.yaml is where every run starts
    fixed: {epochs: 6}                 # fields that all settings share
    grid: {digit_size: [20, 28], seed: [0, 1, 2]}   # every combination
    runs: [{digit_size: 40, n_noise: 2}]            # and single settings
    notebook: 01_o2i_datasize          # optional: settings are then its parameters

In a notebook the same keys may come as a mapping: `run_sweep({"grid": {"seed": [0, 1]}})`.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import found
from ipslib.runs.executors import dask_cluster
from ipslib.runs.profiles import (
    Layout,
    base_config,
    check_profile,
    load_parameters,
    read_settings,
    resolve_notebook,
)
from ipslib.runs.provenance import run_name
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import run_outcomes

_KEYS = ("profile", "fixed", "grid", "runs", "notebook")


class Sweep(NamedTuple):
    """What a sweep file says: a profile, and settings of runs or of a notebook."""

    profile: str
    notebook: str | None
    settings: list[dict[str, Any]]


class SweepResult(NamedTuple):
    """How a sweep ended: a row a setting, and the records of its bare runs; prints as a table."""

    rows: list[dict[str, Any]]
    records: list[dict]
    n_failed: int

    def __str__(self) -> str:
        return tabulate(self.rows, headers="keys", disable_numparse=True)


def read_sweep(source: str | Path | Mapping[str, Any]) -> Sweep:
    """Read and check a sweep, from a file or a mapping.

    Raises:
        IpslibError: for a missing file, an unknown key, or nothing to do.
    """
    name, content = "the sweep", source
    if not isinstance(source, Mapping):
        path = found(source)
        name, content = path.name, read_settings(path, path.name)
    for key in content:
        if key not in _KEYS:
            raise IpslibError(f"{name}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}.")

    fixed, grid = content.get("fixed") or {}, content.get("grid") or {}
    runs = content.get("runs") or []
    if not (isinstance(fixed, Mapping) and isinstance(grid, Mapping)):
        raise IpslibError(f"{name}: fixed and grid: wanted {{field: ...}}, got {fixed}, {grid}.")
    if not all(isinstance(values, list) for values in grid.values()):
        raise IpslibError(f"{name}: grid: wanted a list for every field, got {grid}.")
    if not (isinstance(runs, list) and all(isinstance(each, Mapping) for each in runs)):
        raise IpslibError(f"{name}: runs: wanted a list of {{field: value}}, got {runs!r}.")
    combinations = itertools.product(*grid.values()) if grid else ()
    settings = [fixed | dict(zip(grid, values, strict=True)) for values in combinations]
    settings += [fixed | each for each in runs]
    if not settings:
        raise IpslibError(f"{name} names no runs: give it a grid or a list of runs.")
    return Sweep(check_profile(content.get("profile", "quick")), content.get("notebook"), settings)


def run_sweep(
    source: str | Path | Mapping[str, Any], *, jobs: int = 1, scheduler: str | None = None
) -> SweepResult:
    """Run a sweep, a file's or what such a file would say, to its end, whatever runs come to.

    Args:
        source: path of a sweep file, or a mapping.
        jobs: processes side by side on this machine; 1 runs in this process.
        scheduler: address of a running Dask scheduler, instead of this machine.

    Raises:
        IpslibError: before anything runs, for a wrong field, value or name.
    """
    sweep = read_sweep(source)
    if jobs < 1:
        raise IpslibError(f"jobs: wanted at least 1, got {jobs}.")
    if sweep.notebook:
        if jobs > 1 or scheduler:
            raise IpslibError(
                "a sweep of a notebook goes one execution after the other on this machine, each "
                "with its runs side by side: leave out --jobs and --scheduler, or sweep the bare "
                "runs with them first and let the notebook find their records."
            )
        return _sweep_notebook(sweep)
    base = base_config(sweep.profile)
    configs = [base.replace(**setting) for setting in sweep.settings]
    store = RecordStore(Layout.of(sweep.profile).records)
    executor = dask_cluster(scheduler) if scheduler else None
    outcomes = run_outcomes(configs, store, jobs=jobs, executor=executor)
    ended = {each.config.id: each for each in outcomes}
    in_order = [ended[run_id] for run_id in dict.fromkeys(config.id for config in configs)]
    names = ("run", "id", "state", "last epoch on test")
    cells = [(run_name(each.config), each.config.id, each.status, each) for each in in_order]
    rows = [dict(zip(names, row, strict=True)) for row in cells]
    records = [each.record for each in in_order if each.record]
    return SweepResult(rows, records, len(rows) - len(records))


def _sweep_notebook(sweep: Sweep) -> SweepResult:
    """Execute a notebook once for each setting; records are shared, the rest lies apart."""
    from ipslib.commands.notebooks import check_parameters, execute

    path = resolve_notebook(str(sweep.notebook))
    if any(setting.get("profile", sweep.profile) != sweep.profile for setting in sweep.settings):
        raise IpslibError("profile: name it at the top of the sweep; it holds for all of it.")
    plans = [load_parameters(sweep.profile, path) | each for each in sweep.settings]
    for parameters in plans:
        check_parameters(path, parameters)
    home, rows = Layout.of(sweep.profile).home, []
    for setting, parameters in zip(sweep.settings, plans, strict=True):
        text = json.dumps(parameters, sort_keys=True, default=str)
        key = f"{path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        layout, shown = Layout(home, key), json.dumps(setting, default=str)
        done = execute(path, parameters, layout)
        place = (done.error or str(layout.folder)).splitlines()[0]  # the notebook has the rest
        rows.append({"setting": shown, "state": done.state, "where to look": place})
    return SweepResult(rows, [], sum(row["state"] == "failed" for row in rows))
