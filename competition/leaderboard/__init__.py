"""Scores, the board, and the upload of a submission."""
