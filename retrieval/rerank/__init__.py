"""Which of the hits answer the query best? Cross-encoders, local or behind an endpoint."""
