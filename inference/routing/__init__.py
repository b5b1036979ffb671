"""Which engine should answer a question? A router that learns from questions with scores."""
