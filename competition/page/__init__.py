"""The report: one HTML file that shows what was trained, blended and scored, and works without a network.

evidence.py reads; standings.py, breakdown.py, rarity.py, mixture.py and gallery.py each make sections of it; charts.py
writes figures for plotly.js, markup.py the HTML around them; page.css and page.js go into the file as they are.
"""

from competition.page.compose import SECTIONS, write_report

__all__ = ["SECTIONS", "write_report"]
