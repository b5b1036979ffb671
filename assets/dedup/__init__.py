"""Which documents have the same or nearly the same text? MinHash, LSH bands, connected components."""
