"""The report: one HTML page of curves, tables and pictures."""
