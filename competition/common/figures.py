"""Figures as PNG files, without the name and version of matplotlib."""

import io

from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Render a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
