"""Which sentences pass as supported by a passage, though they were altered, and which true ones do not?"""
