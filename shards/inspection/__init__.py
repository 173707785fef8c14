"""Inspection of data sets: statistics, verification, HTML reports, data cards and export."""
