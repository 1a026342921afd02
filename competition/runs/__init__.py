"""The files under submissions/: folders of runs and blends, candidates, the origin of a file, verification."""
