"""What is stored? Tables, versions, commits and the lineage that they carry."""
