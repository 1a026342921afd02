"""The report: one HTML file that shows what was trained, blended and scored, and works without a network.

evidence.py reads; standings.py, breakdown.py, rarity.py, mixture.py and gallery.py each make sections of it; charts.py
writes figures for plotly.js, markup.py the HTML around them, viewer.py the skeleton that turns; page.css and page.js go
into the file as they are. single.py makes a page of the same kind of one photo.
"""

from competition.page.compose import SECTIONS, write_report
from competition.page.single import photo_page

__all__ = ["SECTIONS", "photo_page", "write_report"]
