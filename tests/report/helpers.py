"""Reads a report page in tests, and runs it in a browser."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

HOSTILE = "<script>alert(1)</script>"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Page(HTMLParser):
    """Collects a page's elements, its text and the content of its script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self.inside != "style":
            self.text += data

    def block(self, key: str) -> dict:
        return next(json.loads(data) for attributes, data in self.scripts if attributes.get("id") == key)


IGNORED = ("willReadFrequently", "GL Driver Message")  # the browser's remarks about speed
TURN = """
addEventListener("load", () => {
  const plot = document.getElementById("viewer-plot");
  plot.scrollIntoView();
  const eye = () => Object.values(plot.layout.scene.camera.eye).map((v) => v.toFixed(3)).join(" ");
  const caption = () => document.getElementById("viewer-caption").textContent;
  const wait = setInterval(() => {
    if (plot.layout === undefined) return;
    clearInterval(wait);
    const before = [eye(), caption()];
    plot.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    document.querySelector('[data-pose="11"]')?.click();
    setTimeout(() => {
      const drawn = document.querySelectorAll("[data-figure] .main-svg").length;
      document.title = JSON.stringify([...before, eye(), caption(), drawn, plot.data.map((trace) => trace.name)]);
    }, 500);
  }, 50);
});
"""


def turn(text: str, folder: Path) -> list:
    """Open a page, press an arrow key, select the last pose, and return TURN's result; the console must stay empty."""
    digest = base64.b64encode(hashlib.sha256(TURN.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)  # the page allows no other script
    page = folder / "page.html"
    page.write_text(text.replace("</body>", f"<script>{TURN}</script></body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--window-size=1280,900"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=6000"]
    command = [CHROMIUM, *flags, "--dump-dom", page.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    console = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in console if not any(remark in line for remark in IGNORED)] == []
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", found.stdout)[1]))
