"""What does Dagster show and check? Gates, drift, metadata, charts, retries."""
