"""What does a person type, and what do they see? The `headwater` command line."""
