"""What is the answer to a question? Retrieval, engines, citations, and the record of each answer."""
