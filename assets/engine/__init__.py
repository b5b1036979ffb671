"""How is a table brought up to date? By one step, which DuckDB in this process or Spark runs."""
