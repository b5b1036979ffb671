"""Where do documents come from, and which of them are new or changed?"""
