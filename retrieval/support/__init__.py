"""Does a passage say what a sentence says? The one predicate, and the words that its rules know."""
