"""Benchmarks: this implementation and a baseline, timed alternately in one process."""
