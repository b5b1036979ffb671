"""What does each command do? Ingest, run, ask, query, replay, evaluate, back up, check the machine."""
