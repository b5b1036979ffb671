"""What is the answer, and what does it stand on? Retrieval, context, prompt, citations, record."""
