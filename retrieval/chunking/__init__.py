"""Where is a text divided? Sentences, and chunks as exact spans."""
