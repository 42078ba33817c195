"""Names, numbers, dates and places that an output invents or misses."""
