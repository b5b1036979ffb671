"""Headwater measured with the alternatives in the same run: `python -m benchmarks`, from a checkout."""
