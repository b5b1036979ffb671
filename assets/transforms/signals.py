"""Quality signals (placeholder columns until the heuristics land)."""

import pyarrow as pa

SIGNALS: dict[str, pa.DataType] = {"word_count": pa.int32()}
