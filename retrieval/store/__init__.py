"""Where does the index live? PostgreSQL, its schema, and the server that is embedded."""
