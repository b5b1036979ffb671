"""What is the answer? Engines, and the way from a question to a cited record."""
