"""One reader a format: bytes in, `Content` out. Heavy parsers are imported on first use, in the worker."""
