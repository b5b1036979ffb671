"""What does a generator read, and what holds of its reply? Prompt assembly, and a check of every citation."""
