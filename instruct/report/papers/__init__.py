"""The two Flan papers: their figures as data (`*.toml`), and what ours are beside them."""
