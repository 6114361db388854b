"""What pages and API show, read from the data directory: a run and its story, an adapter and its lineage, tokens, the disk."""
