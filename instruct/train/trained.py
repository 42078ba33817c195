"""Which parameters a run trains; the others are frozen.

A set of paths splits a tree of parameters into two of the same form, with None where the other has
the array. Gradients and optimiser state exist for the first only.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax

from instruct.checkpoints.train_state import TrainState
from instruct.errors import UserError
from instruct.mesh import tree_paths
from instruct.models.adapters import A, B, is_adapter
from instruct.models.layout import layer_paths

# Paths of trained parameters; None: all.
Trained = frozenset[str] | None


def trained_paths(abstract_params: Any, freeze: str | None) -> Trained:
    """All parameters, or the adapters only if there are some, but for those that match `freeze`.

    `freeze` as in `matching_paths`. Raises UserError if nothing is left.
    """
    paths = [path for path, _ in tree_paths(abstract_params)]
    adapters = [path for path in paths if path.rpartition("/")[2] in (A, B)]
    if not adapters and freeze is None:
        return None
    frozen = matching_paths(abstract_params, freeze, "FREEZE") if freeze is not None else ()
    trained = frozenset(adapters or paths) - frozenset(frozen)
    if not trained:
        raise UserError(
            f"FREEZE = {freeze!r} matches every parameter that would be trained; nothing is left "
            "to train. Name fewer."
        )
    return trained


def matching_paths(abstract_params: Any, pattern: str, setting: str) -> frozenset[str]:
    """Paths of parameters whose whole name, layers separate, matches a regular expression.

    Raises UserError if none does, or only some layers of a stacked parameter.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(
            f"{setting} = {pattern!r} is no regular expression ({error}); write one that matches "
            f"whole names of parameters, such as {example(abstract_params)!r}."
        ) from error
    matching = set()
    for path, leaf in tree_paths(abstract_params):
        names = layer_paths(path, leaf.shape)
        found = [name for name in names if expression.fullmatch(name)]
        if found and len(found) < len(names):
            raise UserError(
                f"{setting} = {pattern!r} matches {len(found)} of the {len(names)} layers of "
                f"{path}, which scan_layers keeps in one array. Match all of them, or set the "
                "model's scan_layers = False."
            )
        if found:
            matching.add(path)
    if not matching:
        raise UserError(
            f"{setting} = {pattern!r} matches no parameter. It must match a whole name, such as "
            f"{example(abstract_params)!r}; 'encoder/.*' is everything that begins so."
        )
    return frozenset(matching)


def example(abstract_params: Any) -> str:
    """The name of some kernel, for messages."""
    names = [
        layer_paths(path, leaf.shape)[0]
        for path, leaf in tree_paths(abstract_params)
        if not is_adapter(path)
    ]
    return next((name for name in names if name.endswith("query/kernel")), names[0])


def split_params(params: Any, trained: Trained) -> tuple[Any, Any]:
    """(trained parameters, frozen ones), with None where the other has an array."""
    if trained is None:
        return params, None
    flags = [path in trained for path, _ in tree_paths(params)]
    leaves, structure = jax.tree.flatten(params)

    def part(wanted: bool) -> Any:
        pairs = zip(leaves, flags)
        return jax.tree.unflatten(structure, [x if flag == wanted else None for x, flag in pairs])

    return part(True), part(False)


def join_params(trained: Any, frozen: Any) -> Any:
    """The inverse of `split_params`."""
    if frozen is None:
        return trained
    return jax.tree.map(
        lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda leaf: leaf is None
    )


def sizes_of(abstract: TrainState, trained: Trained) -> dict[str, int]:
    """Numbers of parameters and bytes of the optimiser's state on all devices, for run.json."""
    leaves = tree_paths(abstract.params)
    return {
        "num_params_held": sum(leaf.size for _, leaf in leaves),
        "num_params_trained": sum(
            x.size for path, x in leaves if trained is None or path in trained
        ),
        "optimizer_bytes": sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract.opt_state)
        ),
    }


def trained_line(sizes: Mapping[str, int]) -> str:
    """`sizes_of` in words."""
    held, trained = sizes["num_params_held"], sizes["num_params_trained"]
    return (
        f"trains {trained:,} of {held:,} parameters ({trained / held:.2%}), optimiser state "
        f"{sizes['optimizer_bytes']:,} bytes"
    )
