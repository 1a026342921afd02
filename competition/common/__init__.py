"""What all other packages build on: errors, files, poses and their CSV, the metric, the console, the workspace."""
