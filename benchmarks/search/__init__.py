"""How fast and how complete are searches at size, beside other search libraries?"""
