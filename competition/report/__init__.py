"""The report: one HTML file that shows what was trained, blended and scored, and works without a network."""
