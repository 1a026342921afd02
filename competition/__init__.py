"""The machinery of a pose-estimation competition: data, folds, training, blending, scoring.

It knows no particular model; those live in the package `models`. The functions for
notebooks and scripts are those of competition.notebook.
"""
