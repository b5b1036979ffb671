"""What do records, tables and trees of values say, as lines?"""
