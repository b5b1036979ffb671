"""Where do documents come from, and what of them is new?"""
