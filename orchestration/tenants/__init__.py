"""What does a tenant hold, and how does it end?"""
