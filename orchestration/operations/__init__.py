"""What does one command do? Ingest, run, query, trace, replay, evaluate, back up, look after the machine."""
