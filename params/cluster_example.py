"""Start workers on a cluster and run a sweep on them: edit the block below, once, and run this.

Needs `pip install 'ipslib[cluster]'` and, where it runs, SLURM's commands (for PBS, LSF, SGE and
others replace SLURMCluster by the class of that name in dask_jobqueue).
"""

from dask_jobqueue import SLURMCluster

from ipslib.commands.sweep import run_sweep

# --- what differs from cluster to cluster -----------------------------------------------------
SWEEP = "params/sweeps/o2i_seeds.yaml"
WORKERS = 4  # runs side by side, one GPU each
JOB = {
    "queue": "gpu",  # partition
    "account": None,
    "walltime": "08:00:00",  # a run that it cuts off goes on from its checkpoint in the next job
    "cores": 1,
    "memory": "16GB",
    "job_extra_directives": ["--gres=gpu:1"],
    # Jobs start in the folder that this script is started in; all nodes must share it.
    "job_script_prologue": ["source .venv/bin/activate"],
}
# ----------------------------------------------------------------------------------------------

if __name__ == "__main__":
    with SLURMCluster(processes=1, worker_extra_args=["--resources", "GPU=1"], **JOB) as cluster:
        # Keeps this many jobs alive; should they run out nevertheless, run this again: it goes on.
        cluster.adapt(minimum_jobs=WORKERS, maximum_jobs=WORKERS)
        swept = run_sweep(SWEEP, scheduler=cluster.scheduler_address)
    print(swept)
    raise SystemExit(int(swept.n_failed > 0))
