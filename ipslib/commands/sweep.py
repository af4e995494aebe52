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
from typing import Any

import attrs
from tabulate import tabulate

from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import found
from ipslib.runs.executors import dask_cluster
from ipslib.runs.naming import run_name
from ipslib.runs.profiles import Layout, base_config, check_profile, load_parameters, read_settings
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import Outcome, run_outcomes

_KEYS = ("profile", "fixed", "grid", "runs", "notebook")


@attrs.frozen
class Sweep:
    """What a sweep file says: a profile, and settings of runs or of a notebook."""

    profile: str
    notebook: str | None
    settings: list[dict[str, Any]]


@attrs.frozen
class SweepResult:
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
    if isinstance(source, Mapping):
        name, content = "the sweep", source
    else:
        path = found(source)
        name, content = path.name, read_settings(path, path.name)
    for key in content:
        if key not in _KEYS:
            raise IpslibError(f"{name}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}.")
    fixed = _mapping(name, "fixed", content.get("fixed") or {})
    grid = _mapping(name, "grid", content.get("grid") or {})
    runs = content.get("runs") or []
    for field, values in grid.items():
        if not isinstance(values, list):
            raise IpslibError(f"{name}: grid: wanted a list for {field}, got {values!r}.")
    if not isinstance(runs, list):
        raise IpslibError(f"{name}: runs: wanted a list of settings, got {runs!r}.")
    combinations = itertools.product(*grid.values()) if grid else ()
    settings = [fixed | dict(zip(grid, values, strict=True)) for values in combinations]
    settings += [fixed | _mapping(name, "runs", each) for each in runs]
    if not settings:
        raise IpslibError(f"{name} names no runs: give it a grid or a list of runs.")
    return Sweep(check_profile(content.get("profile", "quick")), content.get("notebook"), settings)


def run_sweep(
    source: str | Path | Mapping[str, Any], *, jobs: int = 1, scheduler: str | None = None
) -> SweepResult:
    """Run a sweep to its end, whatever single runs come to.

    Args:
        source: path of a sweep file, or what such a file would say.
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
    records = [each.record for each in in_order if each.record]
    n_failed = len(in_order) - len(records)
    return SweepResult([_row(each) for each in in_order], records, n_failed)


def _row(outcome: Outcome) -> dict[str, Any]:
    run = {"run": run_name(outcome.config), "id": outcome.config.id}
    return run | {"state": outcome.status, "last epoch on test": str(outcome)}


def _sweep_notebook(sweep: Sweep) -> SweepResult:
    """Execute a notebook once for each setting; records are shared, the rest lies apart."""
    from ipslib.commands.notebooks import check_parameters, execute
    from ipslib.runs.profiles import resolve_notebook

    path = resolve_notebook(str(sweep.notebook))
    for setting in sweep.settings:
        if setting.get("profile", sweep.profile) != sweep.profile:
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


def _mapping(name: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise IpslibError(f"{name}: {key}: wanted {{field: value}}, got {value!r}.")
    return dict(value)
