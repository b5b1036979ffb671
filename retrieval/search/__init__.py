"""Which chunks match a query? Lexical search, vector search, their fusion, filters."""
