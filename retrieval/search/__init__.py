"""Which chunks answer a query? Words, vectors, their fusion, filters."""
