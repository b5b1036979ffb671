"""How does a batch of prompts become text on this machine's processors, fast and the same bytes each time?"""
