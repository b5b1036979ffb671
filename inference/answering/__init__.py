"""How is a question answered? Retrieval, engine, citations, and the record of the answer."""
