"""Files and folders on disks and in buckets, downloads, error classes and keyed randomness."""
