"""The parameters that a strategy decodes with: float32 as they are, or an int8 copy."""

import weakref
from typing import Any

import jax
from jax.sharding import Mesh

from instruct.collectives import gathers
from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.slots import mesh_context
from instruct.model_interface import Model, Params


def check_weights(config: DecodeConfig, mesh: Mesh | None) -> None:
    """Raises UserError: int8, and the mesh splits a layer's weights over the devices of a batch."""
    if config.weights == "int8" and mesh is not None and gathers(mesh):
        raise UserError(
            f"DecodeConfig.weights = 'int8' needs whole kernels on every device, but the mesh "
            f"is {dict(mesh.shape)}. Set MeshConfig.fsdp = 1 and MeshConfig.sequence = 1, "
            "or weights = 'float32'."
        )


class _Int8Copy:
    """The int8 copy that was made last, for every strategy.

    It goes when the first array of the parameters does: a device may hold no other checkpoint.
    """

    def __init__(self):
        self._model: Model | None = None
        self._arrays: list[weakref.ref[jax.Array]] = []
        self._copy: Params = {}

    def of(self, model: Model, params: Params) -> Params:
        """The parameters in int8, without adapters."""
        arrays, copy = jax.tree.leaves(params), self._copy
        same = model == self._model and len(arrays) == len(self._arrays)
        if not same or any(known() is not own for known, own in zip(self._arrays, arrays)):
            self._forget()
            copy = model.int8_params(params)
            self._arrays = [weakref.ref(array, self._forget) for array in arrays]
            self._model, self._copy = model, copy
        return copy

    def _forget(self, _: Any = None) -> None:
        self._model, self._arrays, self._copy = None, [], {}


_LAST_COPY = _Int8Copy()


def decoding_params(
    model: Model, params: Params, config: DecodeConfig, mesh: Mesh | None
) -> Params:
    """The parameters in the type of the strategy's `weights`."""
    if config.weights == "float32":
        return params
    with mesh_context(mesh):
        return _LAST_COPY.of(model, params)
