"""Shared basics of all packages: errors, files, skeleton, geometry, pose CSVs, metrics, console, workspace."""
