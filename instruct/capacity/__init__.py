"""What a training step needs of a machine: memory, operations, traffic, time, from its program."""
