"""Which tables does the lake have, and how are they made? Thin Dagster assets over pure functions."""
