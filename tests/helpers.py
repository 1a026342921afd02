"""What tests share besides fixtures: the size of the small competition, a tiny network, and how to compare folders."""

import json
import os
from pathlib import Path

N, N_TEST = 40, 12

# A network of the real code that trains in a second.
TINY = ["--model", "3dhg-small", "--channels", "16", "--depths", "1,8", "--input-size", "64", "--batch", "8"]
TINY += ["--schedule", "constant", "--lr", "1e-3", "--precision", "fp32"]
TIMINGS = ("seconds", "images_per_second")


def without_make() -> dict[str, str]:
    """Return the environment without what a make that runs the tests left in it."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def contents(folder: Path) -> dict[str, object]:
    """Return every file's bytes; of the log and the manifest all but the timings."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ("log.jsonl", "done.json"):
            rows = [json.loads(line) for line in path.read_text().replace("\n  ", "").replace("\n}", "}").splitlines()]
            found[path.name] = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found
