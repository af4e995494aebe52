"""Runs: from a configuration to its record, alone, side by side or on a cluster."""
