"""From registered tasks to packed batches."""
