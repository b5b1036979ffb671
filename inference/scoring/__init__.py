"""Which part of a passage answers the question? Units that can be quoted, and their scorer."""
