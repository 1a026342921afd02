"""The weights of a blend as a heat map."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from competition.common.arrays import Float64
from competition.common.console import printable
from competition.common.figures import png
from competition.common.skeleton import AXES, JOINTS

INCHES_PER_NAME, INCHES_PER_ROW = 0.55, 0.17


def weights_picture(names: Sequence[str], weights: Float64) -> bytes:
    """Draw weights [17, 3, M] as a heat map, one row per coordinate (without the root), one column per candidate."""
    rows = weights[1:].reshape(-1, len(names))
    figure = Figure(
        figsize=(2.2 + INCHES_PER_NAME * len(names), 1.8 + INCHES_PER_ROW * len(rows)), layout="constrained"
    )
    axes = figure.add_subplot()
    image = axes.imshow(rows, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(
        range(len(names)), [printable(name) for name in names], rotation=60, ha="right", rotation_mode="anchor",
        fontsize=8, parse_math=False,
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [axis for _ in JOINTS[1:] for axis in AXES], fontsize=6)
    for number, joint in enumerate(JOINTS[1:]):
        axes.text(-0.9, 3 * number + 1, joint, ha="right", va="center", fontsize=8)
        axes.axhline(3 * number - 0.5, color="white", linewidth=1)
    axes.tick_params(length=0)
    axes.set_title("weight of each candidate", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.4)
    return png(figure)
