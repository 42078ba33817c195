"""Task families, suites and mixtures."""
