"""Memory of a compiled program on one device, as its compiler counts it."""

import math
import re
from collections.abc import Mapping
from typing import Any

# Refusal of the TPU compiler: 'Used 20.5G of 15.75G hbm'.
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_BITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def memory_bytes(compiled: Any) -> dict[str, int]:
    """Bytes of one device by purpose, and 'total'; outputs in their arguments' place are free.

    Arguments are parameters, optimiser state and the batch; temporaries are gradients, gathered
    weights and activations, at the moment when most of them live.
    """
    analysis = compiled.memory_analysis()
    parts = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
    }
    return parts | {"total": sum(parts.values())}


def refused_bytes(error: Exception) -> tuple[float, float] | None:
    """(bytes needed, bytes there) of a compiler that found the memory too small; None: another."""
    used = _USED.search(str(error))
    if used is None:
        return None
    return float(used[1]) * 2 ** _BITS[used[2]], float(used[3]) * 2 ** _BITS[used[4]]


def largest_rows(memory: Mapping[str, int], rows: float, hbm_bytes: int) -> int:
    """Rows of a microbatch that fit on one device: an estimate, and a cautious one.

    It lets all temporaries grow with the rows, although gradients and gathered weights among them
    do not.
    """
    left = hbm_bytes - memory["total"] + memory["temporaries"]
    return max(0, math.floor(left / max(memory["temporaries"], 1) * rows))
