"""What does a Git repository, a database or a website hold, and what of it is new?"""
