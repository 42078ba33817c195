"""Decoding: strategies, beam search, continuous batching, rules on tokens."""
