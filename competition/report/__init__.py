"""The report: one HTML file about runs, blends and scores that works offline."""
