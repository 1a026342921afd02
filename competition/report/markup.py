"""Builds HTML: escaped text, tables, figures, and the self-contained page.

The content security policy allows only the page's two scripts, by their hashes: the page makes no requests, and a name
that was not escaped could not run as a script.
"""

import base64
import hashlib
import html
import json
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from competition.report.charts import Figure

PLOTLY: Final = ("plotly", "package_data/plotly.min.js")
OWN: Final = "competition.report"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page: HTML, and the figures that page.js draws in it by name."""

    key: str  # the anchor
    title: str
    body: str
    figures: dict[str, Figure] = field(default_factory=dict)
    gallery: dict[str, Any] | None = None  # the poses that the viewer shows


def escape(text: object) -> str:
    """Escape text for HTML, attributes included."""
    return html.escape(str(text))


def skipped(key: str, title: str, why: str) -> Section:
    """Make a section that only states why it is empty."""
    return Section(key=key, title=title, body=f'<p class="skipped">{escape(why)}</p>')


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 2, anchor: str = ""
) -> str:
    """Build a table; the first column is the row's heading, floats have `digits` decimals, None is an empty cell.

    With an `anchor` each row has an id, the anchor followed by the row's heading, as a target for links.
    """
    numeric = [any(isinstance(row[place], int | float) for row in rows) for place in range(len(headings))]
    kinds = [' class="number"' if place and is_numeric else "" for place, is_numeric in enumerate(numeric)]
    head = "".join(f'<th scope="col"{k}>{escape(heading)}</th>' for k, heading in zip(kinds, headings, strict=True))
    cells = [[_cell(cell, place, kinds[place], digits) for place, cell in enumerate(row)] for row in rows]
    names = [f' id="{escape(anchor)}{escape(row[0])}"' if anchor else "" for row in rows]
    body = "".join(f"<tr{name}>{''.join(row)}</tr>" for name, row in zip(names, cells, strict=True))
    label = escape(caption)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table><caption>{label}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: object, place: int, kind: str, digits: int) -> str:
    text = escape("" if cell is None else f"{cell:.{digits}f}" if isinstance(cell, float) else cell)
    return f'<th scope="row">{text}</th>' if place == 0 else f"<td{kind}>{text}</td>"


def chart(name: str, figure: Figure, alternative: str, numbers: str = "") -> str:
    """Build the container of a figure with its text alternative, and its numbers in a collapsed element."""
    details = f"<details><summary>The numbers</summary>{numbers}</details>" if numbers else ""
    height = int(figure["layout"]["height"])  # reserved, so that drawing the figure does not move the page
    return (
        f'<figure class="chart"><div class="plot" data-figure="{escape(name)}" role="img" '
        f'aria-label="{escape(alternative)}" style="height:{height}px"></div>{details}</figure>'
    )


def data_block(key: str, value: Any) -> str:
    """Embed JSON for page.js; every < is escaped, so that no text can end the script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>'


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Compose one HTML document from sections; it needs no other file."""
    scripts = [_asset(*PLOTLY), _asset(OWN, "page.js")]
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
    )
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    galleries = [section.gallery for section in sections if section.gallery is not None]
    links = "".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in sections)
    navigation = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""
    body = "".join(
        f'<section id="{s.key}" aria-labelledby="{s.key}-title"><h2 id="{s.key}-title">{escape(s.title)}</h2>'
        f"{s.body}</section>"
        for s in sections
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset(OWN, 'page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{introduction}{navigation}</header>\n"
        f"<main>{body}</main>\n"
        f"<noscript><p>Charts need JavaScript; tables work without it.</p></noscript>\n"
        f"{data_block('figures', figures)}\n{data_block('gallery-poses', galleries[0] if galleries else None)}\n"
        + "\n".join(f"<script>{script}</script>" for script in scripts)
        + "\n</body>\n</html>\n"
    )


def _asset(package: str, name: str) -> str:
    content = pkgutil.get_data(package, name)
    assert content is not None, f"{package} has no {name}"
    text = content.decode().replace("\r\n", "\n")  # browsers normalise line ends before hashing
    assert "</script" not in text, f"{name} contains </script, which would end its element"
    return text
