"""What are a text's language and quality? Normalisation, language, words, quality signals and filter."""
