"""Benchmarks: our way and a plain way, measured in turn in one run, as ratios hold on noisy machines and seconds don't.

measure.py      how two ways are compared
engine.py       training steps, losses, loading, predicting, files
blending.py     the blender's inner loop, its search, and what other blenders score
"""

from competition.bench.measure import BENCHMARKS, Row, run

__all__ = ["BENCHMARKS", "Row", "run"]
