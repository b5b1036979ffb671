"""What do Dagster's checks and web UI show? Gates, drift, metadata, charts, retries."""
