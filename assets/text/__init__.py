"""What is a text like, and is it good enough? Normal form, language, words, quality signals and filter."""
