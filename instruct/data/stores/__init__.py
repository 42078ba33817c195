"""Record stores: building, reading and reporting on them."""
