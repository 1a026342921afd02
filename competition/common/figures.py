"""Figures as PNG, without the name and version of what drew them."""

import io

from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
