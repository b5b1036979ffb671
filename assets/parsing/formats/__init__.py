"""How is each format read? One reader per format: bytes in, blocks out; libraries are imported when used."""
