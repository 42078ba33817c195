"""One module per mode of run.py."""
