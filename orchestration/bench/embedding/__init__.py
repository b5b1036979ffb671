"""How fast and how good is the embedder, beside an alternative and in each numeric format?"""
