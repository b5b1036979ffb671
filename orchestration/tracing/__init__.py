"""What was a thing made from, and what was made from it? Walks from any id to source bytes, and forward."""
