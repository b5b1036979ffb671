"""Imported first, it has Spark not be there: what is run then does without it."""

import sys

for name in ("pyspark", "delta", "py4j"):
    sys.modules[name] = None  # type: ignore[assignment]
