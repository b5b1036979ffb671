"""Which passages say something about a query? Chunks, vectors, the index, and search over it."""
