"""What does a text say whose structure is marked in its characters?"""
