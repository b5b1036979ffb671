"""How does an alternative do the same, in an environment of its own?"""
