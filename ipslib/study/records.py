"""Run records: one JSON file a run, looked up by the configuration's hash before any training.

A folder holds, for a run `id`: `{id}.json` the record, `{id}.pt` the weights, and on the way
there `{id}.checkpoint.pt` and perhaps `{id}.failure`. Files are written to a temporary name,
synced and renamed. What cannot be trusted is set aside with a message, never used or deleted.
No file is read in a way that could execute code.
"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch
from filelock import FileLock

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.study.layout import write_atomically
from ipslib.study.provenance import SCHEMA
from ipslib.training import build_network


@attrs.frozen
class RecordStore:
    """The runs of one profile in a folder."""

    folder: Path

    def find(self, config: RunConfig) -> dict | None:
        """The record of a configuration, or None."""
        path = self.folder / f"{config.id}.json"
        return self._read(path) if path.is_file() else None

    def all(self) -> Iterator[dict]:
        """Every readable record, in the order of ids."""
        for path in sorted(self.folder.glob("*.json")):
            record = self._read(path)
            if record:
                yield record

    def save(self, record: dict, network: IPSNet) -> None:
        """Write weights, then the record, which vouches for them; the way there is cleared."""
        weights = {name: value.cpu() for name, value in network.state_dict().items()}
        _write_tensors(self.weights_path(record), weights)
        write_atomically(self.folder / f"{record['id']}.json", json.dumps(record, indent=1) + "\n")
        self._checkpoint_path(record["id"]).unlink(missing_ok=True)
        self._failure_path(record["id"]).unlink(missing_ok=True)

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
            network.load_state_dict(_read_tensors(path))
        except Exception as error:  # torn archives raise many kinds
            raise IpslibError(
                f"The weights of run {record['name']} ({path.name}) could not be read "
                f"({type(error).__name__}); move the record away and run again to train them."
            ) from error
        return network.eval()

    def save_checkpoint(self, config: RunConfig, snapshot: dict, epoch_seconds: list) -> None:
        """Write where a run has got to: a snapshot of its training state, and its times."""
        content = {"schema": SCHEMA, "id": config.id, "epoch_seconds": epoch_seconds}
        _write_tensors(self._checkpoint_path(config.id), content | {"snapshot": snapshot})

    def load_checkpoint(self, config: RunConfig) -> dict | None:
        """The last checkpoint of a run with `snapshot` and `epoch_seconds`, or None."""
        path = self._checkpoint_path(config.id)
        if not path.is_file():
            return None
        try:
            content = _read_tensors(path)
            if content["schema"] == SCHEMA and content["id"] == config.id:
                return content
            reason = f"of schema {content['schema']} and id {content['id']}"
        except Exception as error:
            reason = f"not readable ({type(error).__name__})"
        self._set_aside(path, reason)
        return None

    def save_failure(self, failure: dict) -> None:
        write_atomically(self._failure_path(failure["id"]), json.dumps(failure, indent=1) + "\n")

    def failures(self) -> list[dict]:
        """What is known of runs that failed and have not succeeded since."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.failure"))]

    def lock(self, config: RunConfig) -> FileLock:
        """The lock of one run. The system releases it when its owner dies, however it dies."""
        folder = self.folder / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / config.id)

    def tidy(self, config: RunConfig) -> None:
        """Remove what a killed writer of this run left half-written; only under its lock."""
        for stray in self.folder.glob(f".{config.id}.*.tmp"):
            stray.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict | None:
        try:
            record = json.loads(path.read_text())
            if record["schema"] == SCHEMA and record["id"] == path.stem:
                return record
            reason = f"of schema {record['schema']} and id {record['id']}"
        except (ValueError, KeyError, TypeError) as error:
            reason = f"not readable ({type(error).__name__})"
        self._set_aside(path, reason)
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        n_earlier = len(list(self.folder.glob(f"{path.stem}.*.set_aside")))
        aside = path.with_suffix(f".{n_earlier + 1}.set_aside")
        path.rename(aside)
        print(f"{path.name} is {reason}; set aside as {aside.name}.", file=sys.stderr)

    def _checkpoint_path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.checkpoint.pt"

    def _failure_path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.failure"


def _write_tensors(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def _read_tensors(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)
