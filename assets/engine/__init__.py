"""How is a table brought up to date? One step, run by DuckDB in this process or by Spark."""
