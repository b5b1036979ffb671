"""What does a person type to say where documents come from, and whose they are?"""
