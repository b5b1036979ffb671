"""What is the answer, and what does it stand on? Retrieval, engine, citations, record."""
