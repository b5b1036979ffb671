"""How does a text become a vector? Model folders, conversion, quantization, encoding."""
