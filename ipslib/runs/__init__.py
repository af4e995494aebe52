"""Runs: from a configuration to its record, alone, side by side or on a cluster."""

import attrs


@attrs.frozen
class Kernel:
    """What the runner of a notebook tells the kernel that executes it; elsewhere nothing."""

    events: str = ""  # the file that takes the events of runs
    apart: str = ""  # the folder of a sweep in which this execution's results lie
    jobs: int = 0  # runs side by side


KERNEL = Kernel()
