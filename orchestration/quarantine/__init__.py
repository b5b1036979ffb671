"""What helps a document that is kept out?"""
