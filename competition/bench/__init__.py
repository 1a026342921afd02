"""Benchmarks: our way and a plain way, measured in turn in one run."""
