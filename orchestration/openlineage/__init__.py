"""What is told to an OpenLineage endpoint? Events of runs, jobs, datasets and models."""
