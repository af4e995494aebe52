"""In which precision a published run is made, and in which it is found again.

A GPU trains the published settings in bf16 (autocast; weights and sums stay float32), a CPU in
fp32. Either is the published run regenerated, its record says which, and a run that has a record
in one is not made in the other. `tests.benchmarks.precision` measures what bf16 keeps.
"""

from ipslib.config import RunConfig
from ipslib.runs.records import RecordStore
from ipslib.runtime import is_accelerator

PRECISIONS = ("fp32", "bf16")


def in_found_precision(config: RunConfig, store: RecordStore, *, device: str = "cpu") -> RunConfig:
    """The run in the precision of its record, else of its checkpoint, else of the device."""
    either = [config.replace(precision=precision) for precision in PRECISIONS]
    for has in (store.find, store.load_checkpoint):
        for each in either:
            if has(each):
                return each
    return either[is_accelerator(device)]
