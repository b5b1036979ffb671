"""Which models were made, from what, and which of them is served? Versions by content, their addresses."""
