"""How fast and how good is it, compared with the alternative in the same run?"""
