"""The content of a page: sections of blocks, which the templates turn into HTML.

The templates escape every text that isn't Markup, which only constants may be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from competition.report.charts import Figure
from competition.report.viewer import Viewer


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    kind: ClassVar[str] = "paragraph"

    text: str
    style: str = ""  # aside, notice, skipped or strong


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first column is the row's heading, floats have `digits` decimals, None is an empty cell.

    With an `anchor` each row has an id, the anchor followed by the row's heading, as a target for links.
    """

    kind: ClassVar[str] = "table"

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    digits: int = 2
    anchor: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        places = range(len(self.headings))
        return [place > 0 and any(isinstance(row[place], int | float) for row in self.rows) for place in places]

    def text(self, value: object) -> str:
        """Return the text of a cell."""
        return "" if value is None else f"{value:.{self.digits}f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A table in an element that is collapsed at first."""

    kind: ClassVar[str] = "numbers"

    table: Table


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure that page.js draws by its name, with its text alternative and its numbers."""

    kind: ClassVar[str] = "chart"

    name: str
    figure: Figure
    alternative: str
    numbers: Table


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Charts with headings, side by side."""

    kind: ClassVar[str] = "pairs"

    charts: Sequence[tuple[str, Chart]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """An image that selects its pose in the viewer."""

    pose: int  # place among the viewer's poses
    name: str
    picture: str  # data URL
    alternative: str
    score: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Cards under headings beside the viewer."""

    kind: ClassVar[str] = "gallery"

    groups: Sequence[tuple[str, Sequence[Card]]]
    viewer: Viewer


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One picture, of side `side_px`, beside the viewer."""

    kind: ClassVar[str] = "photo"

    picture: str  # data URL
    side_px: int
    alternative: str
    caption: str
    viewer: Viewer


Block: TypeAlias = Paragraph | Table | Numbers | Chart | Pairs | Gallery | Photo


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page."""

    key: str  # the anchor
    title: str
    blocks: Sequence[Block]

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures of the charts by name."""
        charts = [block for block in self.blocks if isinstance(block, Chart)]
        charts += [chart for block in self.blocks if isinstance(block, Pairs) for _, chart in block.charts]
        return {chart.name: chart.figure for chart in charts}

    @property
    def viewer(self) -> Viewer | None:
        """The 3D viewer, if there is one."""
        return next((block.viewer for block in self.blocks if isinstance(block, Gallery | Photo)), None)


def skipped(key: str, title: str, why: str) -> Section:
    """Make a section that only states why it is empty."""
    return Section(key=key, title=title, blocks=[Paragraph(why, style="skipped")])
