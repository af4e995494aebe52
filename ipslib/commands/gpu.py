"""The published runs on a GPU, in one call: is it right, how fast is it, and then the queue.

On a machine with a GPU, in a checkout, with MNIST/raw in the folder `mnist`:

    IPSLIB_DATA=mnist python -m ipslib gpu --minutes 9

and again, until nothing is missing; a later call with `--skip-checks` goes straight to the runs.
It needs torch and the packages that `ipslib run` needs, neither papermill nor jupytext. Records
come to outputs/paper/records: commit the .json, and carry the .checkpoint.pt to where the next
call is made. `python -m ipslib queue --readme` then counts them in the README.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping

import torch

from ipslib.commands.gpu_check import compare_devices
from ipslib.commands.queue import work_queue
from ipslib.errors import IpslibError
from ipslib.paths import project_root
from ipslib.runs.files import Layout
from ipslib.runs.profiles import base_config
from ipslib.runs.records import RecordStore
from ipslib.study.published_configs import as_markdown, regenerated

# What is compared, and of how many images: the CPU's part is to take seconds.
_COMPARED = (({"canvas": 1500, "n_noise": 50}, 4), ({"canvas": 3000, "n_noise": 800}, 2))
_COMPARED_SMOKE = (({}, 2),)


def work_on_gpu(
    minutes: float,
    *,
    device: str = "cuda",
    smoke: bool = False,
    jobs: int = 1,
    checks: bool = True,
    trials: bool = False,
    overrides: Mapping[str, object] | None = None,
) -> int:
    """Check the device against the CPU, time a step, and train published runs for what is left.

    Args:
        minutes: for all of it.
        device: `cuda`, or `cpu` to see what happens without one.
        smoke: tiny images and the smoke profile in place of the published settings.
        jobs: queues side by side on the device, each at a run of its own.
        checks: whether to check and time before.
        trials: whether to time torch.compile and cuDNN's search for kernels too.
        overrides: fields of RunConfig that differ in every run.

    Returns:
        1 where the devices disagree, and then nothing is trained, or where a run failed.

    Raises:
        IpslibError: no such device, a published scale on a CPU, or what the queue raises.
    """
    deadline = time.monotonic() + 60 * minutes
    _refuse(minutes, device, smoke, jobs)
    profile = "smoke" if smoke else "paper"
    if checks:
        if not _agree(profile, device, smoke):
            print("the devices disagree: no run was begun.", flush=True)
            return 1
        _time_steps(device, smoke, trials, deadline)
    left = (deadline - time.monotonic()) / 60
    if left <= 0:
        print("no time is left for runs.", flush=True)
        return 0
    status = _work(profile, left, jobs, dict(overrides or {}))
    if not smoke:
        print(as_markdown(regenerated(RecordStore(Layout.of(profile).records))), flush=True)
    return status


def _refuse(minutes: float, device: str, smoke: bool, jobs: int) -> None:
    if not minutes > 0 or jobs < 1:
        raise IpslibError(
            f"minutes and jobs: wanted more than 0 and at least 1, got {minutes:g} and {jobs}."
        )
    if device == "cpu" and not smoke:
        raise IpslibError(
            "device: the published scale needs a GPU; use device cuda, or add --smoke to see it "
            "run on tiny images."
        )
    if device != "cpu" and not torch.cuda.is_available():
        raise IpslibError(
            f"device: wanted {device}, but torch {torch.__version__} finds no GPU here; go to a "
            "machine with one, or try it out with `--device cpu --smoke`."
        )


def _agree(profile: str, device: str, smoke: bool) -> bool:
    base, held = base_config(profile), []
    print(f"{_described(device)} against the CPU, fp32:", flush=True)
    for setting, n_images in _COMPARED_SMOKE if smoke else _COMPARED:
        config = base.replace(**setting)
        agreement = compare_devices(config, device, n_images=n_images)
        print(f"  {config.data.short_name}, {n_images} images: {agreement}", flush=True)
        held.append(agreement.holds)
    return all(held)


def _described(device: str) -> str:
    return torch.cuda.get_device_name(device) if device != "cpu" else "The CPU itself"


def _time_steps(device: str, smoke: bool, trials: bool, deadline: float) -> None:
    """Time a step in processes of their own; what they cannot measure stops no run."""
    if not (project_root() / "tests" / "benchmarks" / "step.py").is_file():
        print("steps are not timed: tests/benchmarks is not here, only in a checkout.", flush=True)
        return
    command = [sys.executable, "-m", "tests.benchmarks.step", "--device", device]
    command += ["--smoke"] * smoke + ["--trials"] * trials
    try:
        done = subprocess.run(
            command, cwd=project_root(), timeout=max(1.0, deadline - time.monotonic())
        )
        said = f"its status was {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = "it took all the time there was"
    if said:
        print(f"steps were not timed to the end: {said}.", flush=True)


def _work(profile: str, minutes: float, jobs: int, overrides: dict[str, object]) -> int:
    if jobs == 1:
        return work_queue(profile, minutes, overrides)
    command = [sys.executable, "-m", "ipslib", "queue", "--profile", profile]
    command += ["--minutes", str(minutes)]
    for name, value in overrides.items():
        command += ["-p", name, json.dumps(value)]
    queues = [subprocess.Popen(command, cwd=project_root()) for _ in range(jobs)]
    try:
        statuses = [queue.wait() for queue in queues]
    finally:
        for queue in queues:
            queue.kill()
    return int(any(statuses))
