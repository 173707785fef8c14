"""Prepare the questions of VCR, TVQA and custom data sets as records."""
