"""Run records: one JSON file a run, looked up by the configuration's hash before any training.

A folder holds, for a run `id`: `{id}.json` the record, `{id}.pt` the weights, and on the way
there `{id}.checkpoint.pt` and perhaps `{id}.failure`. Files are written to a temporary name,
synced and renamed. What cannot be trusted is set aside with a message, never used or deleted.
No file is read in a way that could execute code.
"""

import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch
from filelock import FileLock, Timeout

from ipslib import arithmetic
from ipslib.config import RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.runs.files import write_atomically
from ipslib.runs.provenance import SCHEMA
from ipslib.training import build_network


@attrs.frozen
class RecordStore:
    """The runs of one profile in a folder."""

    folder: Path

    def find(self, config: RunConfig) -> dict | None:
        """The record of a configuration, or None."""
        path = self.folder / f"{config.id}.json"
        return self._read(path) if path.is_file() else None

    def find_earlier(self, config: RunConfig) -> dict | None:
        """The record of a configuration by the latest of the earlier versions of the arithmetic
        that made it, or None."""
        for version in sorted(arithmetic.VERSIONS, reverse=True):
            path = self.folder / f"{config.id_by(version)}.json"
            if version < arithmetic.CURRENT and path.is_file():
                return self._read(path)
        return None

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
        self._clear_way(record["id"])

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
        network = build_network(run_config(record["config"]))
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
                return {name: content[name] for name in ("snapshot", "epoch_seconds")}
            reason = f"of schema {content['schema']} and id {content['id']}"
        except (OSError, MemoryError):
            raise  # says nothing about the file
        except Exception as error:  # torn archives raise many kinds
            reason = f"not readable ({type(error).__name__})"
        self._set_aside(path, reason)
        return None

    def refuse_checkpoint(self, config: RunConfig, reason: str) -> None:
        """Set a checkpoint aside that could be read but not used."""
        self._set_aside(self._checkpoint_path(config.id), reason)

    def save_failure(self, failure: dict) -> None:
        """Keep why a run failed; a disk that takes nothing is told, and stops nothing else."""
        path = self._failure_path(failure["id"])
        try:
            write_atomically(path, json.dumps(failure, indent=1) + "\n")
        except OSError as error:
            print(f"{path.name} could not be written ({error.strerror}).", file=sys.stderr)

    def failures(self) -> list[dict]:
        """What is known of runs that failed and have not succeeded since."""
        paths = sorted(self.folder.glob("*.failure"))
        failures = [self._read(path) for path in paths if not path.with_suffix(".json").is_file()]
        return [failure for failure in failures if failure]

    def lock(self, config: RunConfig) -> FileLock:
        """The lock of one run. The system releases it when its owner dies, however it dies."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self._locks / config.id)

    def is_held(self, config: RunConfig) -> bool:
        """Whether the run is being made at this moment."""
        if not (self._locks / config.id).exists():
            return False
        try:
            with self.lock(config).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that cannot be written: told when the run is made
            return False

    @property
    def _locks(self) -> Path:
        return self.folder / ".locks"

    def tidy(self, config: RunConfig) -> None:
        """Remove what killed writers of this run left; only under its lock or beside its record."""
        for stray in self.folder.glob(f".{config.id}.*.tmp"):
            stray.unlink(missing_ok=True)
        if (self.folder / f"{config.id}.json").is_file():
            self._clear_way(config.id)

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
        names = (path.with_suffix(f".{n}.set_aside") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        try:
            path.rename(aside)
            done = f"set aside as {aside.name}"
        except FileNotFoundError:
            return  # another process has done so
        except OSError as error:
            # Where nothing can be renamed, nothing can be written over it either.
            done = f"not used, and not set aside ({error.strerror})"
        print(f"{path.name} is {reason}; {done}.", file=sys.stderr)

    def _clear_way(self, run_id: str) -> None:
        """Remove what led to a record that is there now."""
        self._checkpoint_path(run_id).unlink(missing_ok=True)
        self._failure_path(run_id).unlink(missing_ok=True)

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
