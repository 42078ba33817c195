"""Family `gym`: `reasoning_gym`'s generators as tasks. Needs no download."""
