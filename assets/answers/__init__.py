"""What was answered, and is it good? The journal, stored answers, batches, their checks, and ratings."""
