"""What does a file say? Bytes to text and structure, within bounds of time and memory."""
