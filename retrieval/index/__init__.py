"""How is the index built, changed and released?"""
