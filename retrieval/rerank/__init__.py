"""Which of the best hits are best? Cross-encoders, local or at an endpoint."""
