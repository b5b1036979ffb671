"""How is the search index built, changed and released? Generations, epochs, postings, the HNSW graph."""
