"""Which of the best hits are best? Cross-encoders, here or at an endpoint."""
