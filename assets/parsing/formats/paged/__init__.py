"""What does a page say that was made to be printed, or a picture of one?"""
