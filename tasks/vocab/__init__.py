"""The vocabulary that comes with the embedded collection, and how it was trained."""
