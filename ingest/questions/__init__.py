"""Turn questions of VCR, TVQA and users' own files into records."""
