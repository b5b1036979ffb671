"""Ingests a folder with LlamaIndex; `bench documents` runs this in LlamaIndex's environment, not in ours.

LlamaIndex holds pandas and other packages below our versions, so nothing of ours is imported here.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

_CHUNK_TOKENS = 240
"""As many as a chunk of Headwater holds at most."""


def _run_llama_index(folder: str, model: str, docstore: Path) -> dict[str, Any]:
    """Ingests a folder; returns the chunks that are new, and the seconds of reading and of the pipeline."""
    from llama_index.core import SimpleDirectoryReader  # type: ignore[import-not-found]
    from llama_index.core.ingestion import IngestionPipeline  # type: ignore[import-not-found]
    from llama_index.core.node_parser import SentenceSplitter  # type: ignore[import-not-found]
    from llama_index.core.storage.docstore import SimpleDocumentStore  # type: ignore[import-not-found]
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding  # type: ignore[import-not-found]
    from tokenizers import Tokenizer

    began = time.perf_counter()
    documents = SimpleDirectoryReader(folder, recursive=True, filename_as_id=True).load_data()
    read_s = time.perf_counter() - began
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(
                chunk_size=_CHUNK_TOKENS,
                chunk_overlap=0,
                include_metadata=False,
                tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            ),
            HuggingFaceEmbedding(model_name=model, device="cpu", embed_batch_size=32),
        ],
        docstore=SimpleDocumentStore(),
        disable_cache=True,
    )
    if docstore.is_dir():
        pipeline.load(str(docstore))
    began = time.perf_counter()
    nodes = pipeline.run(documents=documents)
    pipeline.persist(str(docstore))
    return {"chunks": len(nodes), "seconds": {"read": read_s, "pipeline": time.perf_counter() - began}}


if __name__ == "__main__":
    print(json.dumps(_run_llama_index(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
