"""Where records come from: readers of files, hubs, TFDS, published collections."""
