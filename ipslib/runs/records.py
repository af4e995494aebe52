"""Run records: one JSON file a run, looked up before any training by `ipslib.config.RunConfig.id`:
another configuration, or another version of the arithmetic, is another run.

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

from ipslib.config import ARITHMETIC, ARITHMETICS, RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.paths import write_atomically
from ipslib.runs.provenance import now, provenance, run_name
from ipslib.runtime import is_accelerator
from ipslib.training import Trained, build_network, kept_epoch

SCHEMA = 1


@attrs.frozen
class Run:
    """A configuration in a folder of records: its name, its files and its lock."""

    config: RunConfig
    folder: Path

    id = property(lambda self: self.config.id)
    name = property(lambda self: run_name(self.config))

    def record(self, *, with_weights: bool = False) -> dict | None:
        """The run's record, or None; asked for with its weights, None where they are not here."""
        if with_weights and not self._path("pt").is_file():
            return None
        return _trusted(self._path("json"))

    def save(self, record: dict, network: IPSNet) -> None:
        """Write weights, then the record, which vouches for them; the way there is cleared."""
        _write_tensors(self._path("pt"), {k: v.cpu() for k, v in network.state_dict().items()})
        write_atomically(self._path("json"), json.dumps(record, indent=1) + "\n")
        self.tidy()

    def save_checkpoint(self, snapshot: dict, epoch_seconds: list[float]) -> None:
        """Write where the run has got to: a snapshot of its training state, and its times."""
        content = {"schema": SCHEMA, "id": self.id, "epoch_seconds": epoch_seconds}
        _write_tensors(self._path("checkpoint.pt"), content | {"snapshot": snapshot})

    def checkpoint(self) -> dict | None:
        """The last checkpoint, with `snapshot` and `epoch_seconds`, or None."""
        return _trusted(self._path("checkpoint.pt"))

    def refuse_checkpoint(self, reason: str) -> None:
        """Set a checkpoint aside that could be read but not used."""
        _set_aside(self._path("checkpoint.pt"), reason)

    def save_failure(self, reason: str, message: str) -> None:
        """Keep why the run failed, `reason` in a word or two and `message` in a sentence; a disk
        that takes nothing stops nothing else."""
        failure = {"schema": SCHEMA, "id": self.id, "name": self.name, "reason": reason}
        failure |= {"message": message, "finished": now()}
        path = self._path("failure")
        try:
            write_atomically(path, json.dumps(failure, indent=1) + "\n")
        except OSError as error:
            print(f"{path.name} could not be written ({error.strerror}).", file=sys.stderr)

    def lock(self) -> FileLock:
        """What whoever makes this run holds. The system releases it when its owner dies."""
        return FileLock(self.folder / ".locks" / self.id)

    def is_held(self) -> bool:
        """Whether the run is being made at this moment."""
        lock = self.lock()
        try:
            if Path(lock.lock_file).exists():
                lock.acquire(timeout=0)
                lock.release()
        except Timeout:
            return True
        except OSError:  # a folder that cannot be written: an error when the run is made
            pass
        return False

    def tidy(self) -> None:
        """Remove what killed writers left and, beside a record and its weights, what led to them;
        only under the run's lock or beside its record."""
        strays = list(self.folder.glob(f".{self.id}.*.tmp"))
        if all(self._path(ending).is_file() for ending in ("json", "pt")):
            strays += [self._path("checkpoint.pt"), self._path("failure")]
        for stray in strays:
            stray.unlink(missing_ok=True)

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.id}.{ending}"


@attrs.frozen
class RecordStore:
    """The runs of one profile in a folder."""

    folder: Path = attrs.field(converter=Path.absolute)  # the same for every process

    def run(self, config: RunConfig) -> Run:
        """One configuration among these runs, made or not."""
        return Run(config, self.folder)

    def find(self, config: RunConfig) -> dict | None:
        """The record of a configuration, or None."""
        return self.run(config).record()

    def find_earlier(self, config: RunConfig) -> dict | None:
        """The record of a configuration by the latest of the earlier versions of the arithmetic
        that made it, or None."""
        earlier = sorted(set(ARITHMETICS) - {ARITHMETIC}, reverse=True)
        paths = (self.folder / f"{config.id_by(version)}.json" for version in earlier)
        return next(filter(None, map(_trusted, paths)), None)

    def all(self) -> Iterator[dict]:
        """Every readable record, in the order of ids."""
        return filter(None, map(_trusted, sorted(self.folder.glob("*.json"))))

    def failures(self) -> list[dict]:
        """What is known of runs that failed and have not succeeded since."""
        paths = sorted(self.folder.glob("*.failure"))
        failed = (path for path in paths if not path.with_suffix(".json").is_file())
        return list(filter(None, map(_trusted, failed)))

    def weights_path(self, record: dict) -> Path:
        return self.folder / f"{record['id']}.pt"

    def load_network(self, record: dict) -> IPSNet:
        """The trained network of a record, in evaluation mode.

        Raises:
            IpslibError: where its weights are missing or torn.
        """
        path = self.weights_path(record)
        try:
            weights = _read_tensors(path)
            network = build_network(run_config(record["config"]), pretrained=False)
            network.load_state_dict(weights)
        except Exception as error:  # torn archives raise many kinds
            missing = isinstance(error, FileNotFoundError)
            why = "are not here" if missing else f"could not be read ({type(error).__name__})"
            raise IpslibError(
                f"The weights of run {record['name']} ({path.name}) {why}; move the record away "
                "and run again to train them."
            ) from error
        return network.eval()


def make_record(config: RunConfig, trained: Trained, timing: dict, device: str) -> dict:
    """The record of a finished run; everything but `provenance` and `timing` is the same for
    every repetition of the run."""
    kept, test_set = kept_epoch(trained.history), config.data.open_split("test")
    tests = [row["test"]["accuracy"] for row in trained.history if row["test"]]
    result = {
        "accuracy": kept["test"]["accuracy"],
        "train_accuracy": kept["train"]["accuracy"],
        "best_accuracy": {task: max(each[task] for each in tests) for task in tests[0]},
        "n_test": len(test_set),
        "attention": kept["test"]["attention"],
    }
    if test_set.uneven:
        result["chance"] = dict(test_set.chance)
    if "measures" in kept["test"]:
        result["measures"] = kept["test"]["measures"]
    if "validation" in kept:
        result["best_epoch"] = kept["epoch"]
    return {
        "schema": SCHEMA,
        "arithmetic": ARITHMETIC,
        "id": config.id,
        "name": run_name(config),
        "config": config.flat(),
        "history": trained.history,
        "result": result,
        "provenance": provenance(config, device),
        "timing": timing,
    }


def in_found_precision(config: RunConfig, store: RecordStore, *, device: str = "cpu") -> RunConfig:
    """The run in the precision of its record, else of its checkpoint, else of the device.

    A GPU trains the published settings in bf16 (autocast; weights and sums stay float32), a CPU
    in fp32. Either is the published run regenerated, its record says which, and a run that has a
    record in one is not made in the other. `tests.benchmarks.precision` measures what bf16 keeps.
    """
    either = [config.replace(precision=precision) for precision in ("fp32", "bf16")]
    for has in (store.find, lambda each: store.run(each).checkpoint()):
        for each in either:
            if has(each):
                return each
    return either[is_accelerator(device)]


def _trusted(path: Path) -> dict | None:
    """What a file of a run holds; None where there is none that can be trusted."""
    try:
        content = _read_tensors(path) if path.suffix == ".pt" else json.loads(path.read_text())
        if content["schema"] == SCHEMA and content["id"] == path.name.split(".")[0]:
            return content
        reason = f"of schema {content['schema']} and id {content['id']}"
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise  # says nothing about the file
    except Exception as error:  # torn archives raise many kinds
        reason = f"not readable ({type(error).__name__})"
    _set_aside(path, reason)
    return None


def _set_aside(path: Path, reason: str) -> None:
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


def _write_tensors(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def _read_tensors(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)
