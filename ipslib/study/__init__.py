"""What is said of runs: tables, statistics, figures, findings."""
