"""Toolkit for a pose-estimation competition: data, folds, training, blending, scoring.

It is independent of any particular model; the models are in the package `models`. Notebooks and scripts use the
functions of competition.notebook.
"""
