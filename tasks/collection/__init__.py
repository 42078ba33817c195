"""The page docs/collection.md, written from the tasks."""
