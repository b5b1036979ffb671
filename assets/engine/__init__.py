"""How is a table brought up to date? By one step, run by DuckDB in this process or by Spark."""
