"""Where is it said? Chunks, vectors, the index, and search over it."""
