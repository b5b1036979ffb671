"""What turns a question and passages into words? Extractive, local model, endpoint."""
