"""Family `program_synthesis`: repairing and writing programs."""
