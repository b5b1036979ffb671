"""How fast does a local model write, beside the alternative?"""
