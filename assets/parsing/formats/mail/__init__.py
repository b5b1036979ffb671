"""What does a message say, and what is attached to it?"""
