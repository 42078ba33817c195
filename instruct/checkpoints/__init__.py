"""Checkpoints on disk: this program's own, T5X's and Hugging Face's, read, written, converted."""
