"""How fast and how good is it, beside the alternative in the same run?"""
