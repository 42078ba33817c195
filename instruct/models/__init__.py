"""Transformer models as pure functions of parameter trees."""
