"""Read the documents of text corpora and pack them into token sequences."""
