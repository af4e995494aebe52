"""Watches for what would make a host wait for an accelerator."""

from torch import bool as boolean
from torch.utils._python_dispatch import TorchDispatchMode

_READS_A_VALUE = (
    "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2",
)  # fmt: skip


class Waits(TorchDispatchMode):
    """Notes, while entered, the operations that read a value or have a shape that data decide."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(each is not None and each.dtype == boolean for each in indices)
        if masked or name in _READS_A_VALUE:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))
