"""What the command line runs: notebooks and studies, sweeps, the queue of published runs."""
