"""JAX's persistent compilation cache: a program that was compiled once is read from a folder."""

import jax

from instruct.errors import UserError
from instruct.files import local_folder, make_writable

MACRO = "COMPILATION_CACHE_DIR"
# Programs that compile faster than this are not worth a file.
_LEAST_COMPILE_SECS = 0.1


def use(folder: str | None = None) -> None:
    """Makes JAX keep compiled programs in `folder`; None leaves JAX's own setting alone.

    The key of a program has its operations, shapes, shardings, devices, XLA's flags and the
    versions of jax and jaxlib, so the results are those of a new compilation. Of several processes
    the first one writes, and all read if they see the folder. Bound by gin. Call it before the
    first computation.

    Args:
        folder: created if needed. An address such as gs://bucket/xla is left to JAX.

    Raises:
        UserError: not a folder, or it cannot be written.
    """
    if folder is None:
        return
    if not (isinstance(folder, str) and "://" in folder):
        path = local_folder(MACRO, folder, "~/.cache/instruct/xla").absolute()
        make_writable(MACRO, path)
        folder = str(path)
    elif folder.endswith("://"):
        raise UserError(f"{MACRO} is {folder!r}; give a folder, such as gs://bucket/xla.")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_COMPILE_SECS)
    # 0 would let a file system's own least size apply.
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
