"""Files and folders on disks and in buckets, downloads, errors and randomness: what every other package builds on."""
