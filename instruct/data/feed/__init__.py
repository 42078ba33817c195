"""From record stores to packed batches: plan, windows, pipeline, evaluation examples."""
