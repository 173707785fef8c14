"""Commands on finished data folders: status, statistics, removal and other thresholds."""
