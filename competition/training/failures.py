"""What a model or its memory raises, as one line that says what to do."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import models
from competition.common.errors import RunError, UserError

LESS = "lower --lr or set --clip-norm"  # against what is no longer finite


@contextmanager
def told_where_it_breaks(name: str) -> Iterator[None]:
    """Turn what code in models/ raises into RunError: which entrant, what, and the file and line, as it may be one's
    own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if str(error).startswith("CUDA error"):
            raise  # the device's fault, wherever it comes to light
        frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            frames.append((Path(error.filename or ""), error.lineno))
        inside = [place for place in frames if str(place[0].parent) in models.__path__]
        own = models.recipe(name).network.partition(":")[0].rpartition(".")[2]  # what it builds on is rarely at fault
        places = [place for place in inside if place[0].stem == own] or inside
        if not places or places[-1][0].name == "__init__.py":
            raise
        file, line = places[-1]
        what = " ".join(str(error).split())[:300]
        where = f"{type(error).__name__} at models/{file.name}:{line}; --debug shows the way there"
        raise RunError(f"model {name}: {what} ({where})") from error


@contextmanager
def told_when_out_of_memory(what_to_do: str) -> Iterator[None]:
    """Turn an allocation that failed, on a GPU or not, into RunError; a compilation that failed, too."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            raise RunError(f"out of memory: {what_to_do}") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise RunError(f"--compile fails here, {str(error).strip().splitlines()[0]}: leave it out") from error
        raise
