"""What does a person type to make training sets and models, and what do they see?"""
