"""Turn errors of models and memory into one line with advice."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import models
from competition.common.errors import RunError, UserError


@contextmanager
def report_model_errors(name: str, *, where: str | None = None) -> Iterator[None]:
    """Turn an error of a call into a model's code, which may be the user's own, into RunError with file and line.

    Wrap only the calls themselves (see `calls`). Errors that aren't the model's pass unchanged: those of memory and
    compilation, and those without a line in models/, unless `where` says which part of the model's work has none.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _is_out_of_memory(error) or _is_compilers(error) or str(error).startswith("CUDA error"):
            raise  # the last are raised asynchronously: the line would be wrong
        frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            frames.append((Path(error.filename or ""), error.lineno))
        inside = [place for place in frames if str(place[0].parent) in models.__path__]
        own = models.recipe(name).network.partition(":")[0].rpartition(".")[2]  # more likely wrong than shared layers
        places = [place for place in inside if place[0].stem == own] or inside
        if where is None and (not places or places[-1][0].name == "__init__.py"):
            raise
        what = " ".join(str(error).split())[:300]
        at = f"at models/{places[-1][0].name}:{places[-1][1]}" if where is None else f"in {where}"
        kind = f"{type(error).__name__} {at}; --debug prints the traceback"
        raise RunError(f"model {name}: {what} ({kind})") from error


@contextmanager
def report_out_of_memory(fix: str) -> Iterator[None]:
    """Turn a failed allocation on CPU or GPU, or a failed compilation, into RunError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            raise RunError("out of memory", fix=fix) from error
        if _is_compilers(error):
            what = f"--compile failed: {str(error).strip().splitlines()[0]}"
            raise RunError(what, fix="train without it") from error
        raise


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _is_compilers(error: Exception) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
