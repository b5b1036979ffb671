"""What does a document of an office program, or a book, say?"""
