"""Where does the index live? PostgreSQL, its schema, and the embedded server."""
