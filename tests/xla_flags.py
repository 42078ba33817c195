"""XLA flags of test processes. Imports nothing: they are set before the first import of jax."""

# Half of the compile time for code that runs once; the same operations in the same order.
QUICK_COMPILATION = "--xla_backend_optimization_level=0"
