"""What is a text like? Normal form, language, tokens, quality signals, damage."""
