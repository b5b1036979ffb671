"""What would a run do, how long would it take, and what would it do again?"""
