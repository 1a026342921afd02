"""The list of all benchmarks, and the function that runs them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from competition.bench import blending, engine, gpu
from competition.bench.measure import Row
from competition.common.errors import UserError, unknown_message

Benchmark: TypeAlias = Callable[[], list[Row]]

BENCHMARKS: Final[dict[str, Benchmark]] = {
    "blend-objective": blending.objective,
    "blend-search": blending.search_and_gate,
    "blend-quality": blending.quality,
    "blend-fresh": blending.fresh,
    "blend-stack": blending.stacked,
    "blend-views": blending.other_cameras,
    "blend-unequal": blending.unequal,
    "train-2dhg-x1": engine.train_2d_x1,
    "train-2dhg-x2": engine.train_2d_x2,
    "train-2dhg-x8": engine.train_2d_x8,
    "train-3dhg": engine.train_3d,
    "train-3dhg-small": engine.train_3d_small,
    "gpu-2dhg": gpu.train_2d_gpu,  # without a GPU no rows
    "gpu-3dhg": gpu.train_3d_gpu,
    "volume-loss": engine.volume_loss,
    "loader": engine.loading,
    "bottleneck": engine.bottleneck,
    "predict": engine.predict_set,
    "csv": engine.csv_files,
    "decoders": engine.decoders,
}


SLOW: Final = ("blend-stack", "blend-views")  # run only by name


def run(names: Sequence[str] | None = None) -> Iterator[tuple[str, list[Row]]]:
    """Run the named benchmarks, or all but the slow ones, one after another; raise UserError for an unknown name."""
    for name in names or ():
        if name not in BENCHMARKS:
            raise UserError(unknown_message("benchmark", name, BENCHMARKS))
    for name in names or (name for name in BENCHMARKS if name not in SLOW):
        yield name, BENCHMARKS[name]()
