"""Where is the index stored? In PostgreSQL: connections, the schema, and the embedded server."""
