"""How is an adapter of a generator trained? What it learns to write, its network, the job that makes it."""
