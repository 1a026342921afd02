"""Everything under submissions/: the folders of runs and blends, what can be blended, where a file came from."""
