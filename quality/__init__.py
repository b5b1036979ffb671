"""Is it good enough? Suites, gates, drift, personal data, evaluation."""
