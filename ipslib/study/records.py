"""Run records: one JSON file a run, looked up by the configuration's hash before any training."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import numpy as np
import torch
import torchvision

import ipslib
from ipslib.config import RunConfig
from ipslib.data.digits import load_digits
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.naming import run_name
from ipslib.study.layout import project_root, write_atomically
from ipslib.training import Trained, build_network

SCHEMA = 1


@attrs.frozen
class RecordStore:
    """The records of one profile in a folder: `{id}.json`, and the weights as `{id}.pt`."""

    folder: Path

    def find(self, config: RunConfig) -> dict | None:
        """The record of a configuration, or None. What cannot be read is set aside, not used."""
        path = self.folder / f"{config.id}.json"
        return self._read(path) if path.is_file() else None

    def save(self, record: dict, network: IPSNet) -> Path:
        """Write weights, then the record: a record vouches for its weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = self.weights_path(record)
        temporary = weights.with_suffix(f".{os.getpid()}.tmp")
        try:
            torch.save({k: v.cpu() for k, v in network.state_dict().items()}, temporary)
            os.replace(temporary, weights)
        finally:
            temporary.unlink(missing_ok=True)
        path = self.folder / f"{record['id']}.json"
        return write_atomically(path, json.dumps(record, indent=1) + "\n")

    def all(self) -> Iterator[dict]:
        """Every readable record, in the order of ids."""
        for path in sorted(self.folder.glob("*.json")):
            record = self._read(path)
            if record:
                yield record

    def weights_path(self, record: dict) -> Path:
        return self.folder / f"{record['id']}.pt"

    def load_network(self, record: dict) -> IPSNet:
        """The trained network of a record, in evaluation mode."""
        path = self.weights_path(record)
        if not path.is_file():
            raise IpslibError(
                f"The weights of run {record['name']} ({path.name}) are not here, only its "
                "record; move the record away and run again to train them."
            )
        network = build_network(RunConfig.from_flat(record["config"]))
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torn archives raise many kinds
            raise IpslibError(
                f"The weights of run {record['name']} ({path.name}) could not be read "
                f"({type(error).__name__}); move the record away and run again to train them."
            ) from error
        return network.eval()

    def _read(self, path: Path) -> dict | None:
        try:
            record = json.loads(path.read_text())
            if record["schema"] == SCHEMA and record["id"] == path.stem:
                return record
            reason = f"of schema {record['schema']} and id {record['id']}"
        except (ValueError, KeyError, TypeError) as error:
            reason = f"not readable ({type(error).__name__})"
        n_earlier = len(list(path.parent.glob(f"{path.stem}.*.set_aside")))
        aside = path.with_suffix(f".{n_earlier + 1}.set_aside")
        path.rename(aside)
        print(f"{path.name} is {reason}; set aside as {aside.name}.", file=sys.stderr)
        return None


def make_record(config: RunConfig, trained: Trained, timing: dict, device: str) -> dict:
    """The record of a finished run; everything but `provenance` and `timing` is the same for
    every repetition of the run."""
    last = trained.history[-1]
    tests = [row["test"]["accuracy"] for row in trained.history if row["test"]]
    return {
        "schema": SCHEMA,
        "id": config.id,
        "name": run_name(config),
        "config": config.flat(),
        "history": trained.history,
        "result": {
            "accuracy": last["test"]["accuracy"],
            "train_accuracy": last["train"]["accuracy"],
            "best_accuracy": {task: max(each[task] for each in tests) for task in tests[0]},
            "n_test": config.data.n_test,
            "attention": trained.localisation._asdict(),
        },
        "provenance": provenance(config, device),
        "timing": timing,
    }


def provenance(config: RunConfig, device: str) -> dict:
    """What a result was made with: code, versions, machine and the digits' bytes."""
    digits = {split: load_digits(config.data.digits, split) for split in ("train", "test")}
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "ipslib": ipslib.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if "cuda" in device else _processor(),
        "threads": torch.get_num_threads(),
        "digit_source": config.data.digits,
        "digits_sha256": {split: each.sha256 for split, each in digits.items()},
    }


def _commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(project_root()), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "CPU"
