"""What runs as a service, and what is started again when it dies? By the supervisor, within a budget."""
