"""How good are retrieval and answers, and may it go live? Collections, metrics, plots, the release gate."""
