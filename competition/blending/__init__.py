"""The blender: joined candidates, their weights, and how far a blend of them can be trusted."""
