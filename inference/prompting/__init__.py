"""What is in a model's prompt, and is its reply supported? Prompt assembly, and a check of every citation."""
