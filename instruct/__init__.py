"""Instruction tuning in JAX: tasks, mixtures, packed training, evaluation, reports."""
