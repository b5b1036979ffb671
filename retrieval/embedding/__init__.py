"""What is a text's vector? Model folders, conversion, quantization, encoding."""
