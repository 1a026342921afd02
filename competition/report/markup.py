"""Composes the self-contained page from page.html.jinja, page.css and page.js.

The content security policy allows only the page's two scripts, by their hashes: the page makes no requests, and a name
that was not escaped could not run as a script.
"""

import base64
import hashlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import Final

import jinja2
from markupsafe import Markup

from competition.common.records import to_json
from competition.report.blocks import Paragraph, Section

PLOTLY: Final = ("plotly", "package_data/plotly.min.js")
OWN: Final = "competition.report"


def page(title: str, introduction: Sequence[Paragraph], sections: Sequence[Section]) -> str:
    """Compose one HTML document from sections; it needs no other file."""
    scripts = [_asset(*PLOTLY), _asset(OWN, "page.js")]
    viewers = [section.viewer for section in sections if section.viewer is not None]
    return (
        _templates()
        .get_template("page.html.jinja")
        .render(
            title=title,
            introduction=introduction,
            sections=sections,
            figures={name: figure.to_json() for section in sections for name, figure in section.figures.items()},
            poses=to_json(viewers[0]) if viewers else None,
            style=_asset(OWN, "page.css"),
            scripts=scripts,
            hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
        )
    )


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader(OWN, ""), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return templates


def _asset(package: str, name: str) -> Markup:
    """Read one of our own style sheets or scripts, which are inserted as they are."""
    content = pkgutil.get_data(package, name)
    assert content is not None, f"{package} has no {name}"
    text = content.decode().replace("\r\n", "\n")  # browsers normalise line ends before hashing
    assert "</script" not in text, f"{name} contains </script, which would end its element"
    return Markup(text)
