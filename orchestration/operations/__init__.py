"""What does one command do? Ingest, run, ask, query, replay, evaluate, back up, look after the machine."""
