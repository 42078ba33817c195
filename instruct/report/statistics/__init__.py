"""Statistics of pages: the bootstrap, and formulas for intervals and p-values."""
