"""How is each format read? One reader per format: bytes in, blocks out; libraries are imported when used.

Here lies what they share: lists and table rows as lines, and ZIP packages.
"""
