"""What does one command about training sets and models do?"""
