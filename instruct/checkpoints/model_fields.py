"""A model's configuration as fields: which determine what it computes, and their record in JSON."""

import dataclasses
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

from instruct.errors import UserError, unknown_name
from instruct.models.config import ModelConfig
from instruct.models.model import AnyConfig
from instruct.models.stack_config import ComputeConfig

CLASSES = {kind.__name__: kind for kind in typing.get_args(AnyConfig)}
# Entry of a record with the name of the class; records of T5 models may lack it.
CLASS = "class"
# Fields that no parameters depend on: a checkpoint may be trained on with others.
FREE_FIELDS = frozenset({"prefix_lm", *ComputeConfig.__dataclass_fields__})
# Fields that the shapes of parameters show.
_SHAPE_FIELDS = frozenset(
    {
        *("vocab_size", "d_model", "d_ff", "num_heads", "num_kv_heads", "head_dim", "num_layers"),
        *("num_encoder_layers", "num_decoder_layers", "relpos_buckets", "tied_output"),
    }
)


def flat_fields(model: Any) -> dict[str, Any]:
    """Name -> value of every field; those of nested configurations as 'encoder.num_layers'."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{name}": part for name, part in flat_fields(value).items()}
        else:
            flat[field.name] = value
    return flat


def computed_fields(model: Any, shapes: bool = True) -> dict[str, Any]:
    """`flat_fields` that determine what a model computes, equal for equal computations.

    Without `shapes` only fields that no shape of a parameter shows.
    """
    flat = flat_fields(model)
    for name in [name for name in flat if name.endswith("layer_pattern")]:
        stack = name.removesuffix("layer_pattern")
        pattern, depth = flat[name], flat[f"{stack}num_layers"]
        flat[name] = tuple(pattern[i % len(pattern)] for i in range(depth))
        if "local" not in flat[name]:
            flat |= {f"{stack}window": None, f"{stack}local_rope_theta": None}
        if flat[f"{stack}query_scale"] is None:
            flat[f"{stack}query_scale"] = flat[f"{stack}head_dim"] ** -0.5
    skipped = FREE_FIELDS if shapes else FREE_FIELDS | _SHAPE_FIELDS
    return {n: value for n, value in flat.items() if n.rpartition(".")[2] not in skipped}


def differences(there: Any, wanted: Any, name: str, shapes: bool = True) -> list[str]:
    """'d_ff is 10 there, 11 in NAME' for each of `computed_fields` that differs."""
    if type(there) is not type(wanted):
        return [f"{type(there).__name__} there, {type(wanted).__name__} in {name}"]
    theirs, ours = computed_fields(there, shapes), computed_fields(wanted, shapes)
    return [
        f"{field} is {theirs.get(field)!r} there, {ours.get(field)!r} in {name}"
        for field in sorted(theirs.keys() | ours.keys())
        if theirs.get(field) != ours.get(field)
    ]


def record_of(model: Any) -> dict[str, Any]:
    """The fields of a configuration and its class, as run.json holds them."""
    return {CLASS: type(model).__name__} | dataclasses.asdict(model)


def recorded_model(record: Mapping[str, Any], path: pathlib.Path) -> Any:
    """The configuration that run.json at `path` records; raises UserError if it is impossible."""
    name = record.get(CLASS, ModelConfig.__name__)
    if name not in CLASSES:
        raise unknown_name(f"class of the model in {path}", str(name), CLASSES)
    try:
        return _from_record(CLASSES[name], record)
    except UserError as error:
        raise UserError(f"{path} describes an impossible model: {error}") from error


def _from_record(kind: type, record: Mapping[str, Any]) -> Any:
    """A dataclass, with those inside it; entries that are no fields are ignored."""
    hints = typing.get_type_hints(kind)
    fields = {}
    for name in kind.__dataclass_fields__:
        if name in record:
            value = record[name]
            kinds = (hints[name], *typing.get_args(hints[name]))
            nested = [k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)]
            if nested and isinstance(value, Mapping):
                value = _from_record(nested[0], value)
            fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**fields)
