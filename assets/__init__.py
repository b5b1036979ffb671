"""What is made? The layers as thin Dagster assets over pure functions."""
