"""Loss, optimiser, step, checkpoints and the training loop."""
