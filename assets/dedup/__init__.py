"""Which documents say the same? MinHash, bands, connected components."""
