"""How good is retrieval, and may it go live? Test collections, metrics, plots, the release gate."""
