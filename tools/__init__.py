"""Programs that make what is packaged."""
