"""How do the prompts of a file get their answers in another process, with a Python of its own?"""
