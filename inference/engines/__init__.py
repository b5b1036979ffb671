"""Which engine writes the answer from a question and passages? Extractive, local model, endpoint."""
