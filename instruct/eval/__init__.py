"""Decoding, scoring, metrics and the evaluation runner."""
