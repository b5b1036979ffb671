"""What keeps running? PostgreSQL, the web UI, the daemon and the JDBC endpoint of one state folder."""
