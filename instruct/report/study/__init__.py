"""Read a study's folder and compute its scores."""
