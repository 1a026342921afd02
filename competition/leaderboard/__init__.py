"""Scores, the board, and the upload of submissions."""
