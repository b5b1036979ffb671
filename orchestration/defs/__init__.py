"""Where `dg` looks for components; Headwater's definitions are in `orchestration.definitions`."""
