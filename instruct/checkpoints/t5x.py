"""Reads T5X's checkpoints: the legacy layout (msgpack index and zarr arrays) and Orbax's.

    checkpoint_<step>/checkpoint                  index: nested names; small arrays are in it
                     /target.<path.with.dots>/    one zarr array per parameter
                     /state.param_states.<path>.<slot>/    Adafactor's unfactored slots
    checkpoint_<step>/state/_METADATA, ...        the same tree as Orbax writes it

T5X's names are ours. `examples/scalable_t5` stacks layers along axis 1 and keeps heads separate;
such checkpoints are read one layer at a time. The index records the addresses that arrays had when
they were written; they are ignored, since arrays lie beside it.
"""

import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import serialization

from instruct.checkpoints.arrays import BFLOAT16, LazyArray, held, layer_of, same_values
from instruct.checkpoints.checkpoint_files import step_of
from instruct.checkpoints.native import open_orbax
from instruct.checkpoints.stores import Store, damaged, open_arrays, refuse_links
from instruct.checkpoints.t5_family import RULES as PARAMETER_RULES
from instruct.checkpoints.weights import Checkpoint, Rule, translate
from instruct.errors import UserError
from instruct.models.config import ModelConfig

KIND = "t5x"
INDEX = "checkpoint"
TARGET, SLOTS, STEP = "target", "state/param_states", "state/step"
SLOT_NAMES = ("m", "v", "v_row", "v_col")
_STACKS = ("encoder", "decoder")
# Names of the scanned stack inside encoder and decoder, and of its relative positions.
_SCANNED = ("encoder", "decoder", "layers")
_SCANNED_BIAS = ("relpos_bias", "relative_posemb")
_PLACEHOLDER = "PLACEHOLDER://"
_VERSION = 3


def open_checkpoint(source: str | Store, slots: bool = False) -> Checkpoint:
    """Opens one step's folder; reads no parameters.

    `source` is its path, `gs://bucket/path`, or an opened store. With `slots` also Adafactor's
    state. Raises UserError if something is missing, damaged, or of a layout that is not read.
    """
    store = source if isinstance(source, Store) else Store(source)
    place = store.place
    if store.spec["driver"] == "file":
        refuse_links(pathlib.Path(place))
    leaves, places = _open_tree(store, slots)
    theirs = _below(leaves, TARGET) or _below(leaves, "params")
    if not theirs:
        roots = ", ".join(sorted({name.partition("/")[0] for name in leaves})) or "nothing"
        raise UserError(f"{place} holds no parameters ({TARGET!r}) but {roots}.")
    stacked = _scanned_rules(theirs, place)
    notes = []
    if stacked:
        if slots:
            raise UserError(
                f"{place}: Adafactor's slots of stacked layers are not read; leave them out."
            )
        notes.append("layers are stacked along axis 1 there (scalable_t5), and are separated")
        notes += _share_bias(theirs, place)
    rules = stacked or [Rule(rule.ours, rule.ours) for rule in PARAMETER_RULES]
    arrays, names, unknown = translate(theirs, rules)
    model = _model_of_arrays(arrays)
    gated = model is not None and model.gated
    if model is not None:
        assumed = "GELU in the gate, " if gated else ""
        assumed += f"epsilon {model.norm_epsilon}, farthest position {model.relpos_max_distance}"
        notes.append(f"a T5X checkpoint does not record everything; assumed are {assumed}")
    return Checkpoint(
        kind=KIND,
        place=place,
        arrays=arrays,
        names={ours: places.get(name, name) for ours, name in names.items()},
        model=model,
        assumed_fields=frozenset(
            {"norm_epsilon", "relpos_max_distance", *(["activations"] if gated else [])}
        ),
        unknown=unknown,
        slots=_used_slots(_below(leaves, SLOTS), place) if slots else {},
        step=_recorded_step(leaves[STEP]) if STEP in leaves else step_of(place),
        notes=tuple(notes),
    )


def _recorded_step(array: LazyArray) -> int:
    value = float(array.read().reshape(-1)[0]) if array.size == 1 else math.nan
    if not (value >= 0 and value.is_integer()):
        raise damaged(array.place, f"the step is {value}, not a whole number")
    return int(value)


def _below(leaves: Mapping[str, LazyArray], prefix: str) -> dict[str, LazyArray]:
    start = f"{prefix}/"
    return {n.removeprefix(start): leaf for n, leaf in leaves.items() if n.startswith(start)}


def _open_tree(store: Store, slots: bool) -> tuple[dict[str, LazyArray], dict[str, str]]:
    """(path -> array, parameter's path -> name for people) in either layout."""
    folders = [store, store.folder("state")]
    for inner in folders:
        if inner.read("_METADATA") is not None:
            return open_orbax(inner), {}
    for inner in folders:
        text = inner.read(INDEX)
        if text is not None:
            return _open_legacy(inner, text, slots)
    raise UserError(
        f"{store.place} has no {INDEX!r} file and no state/_METADATA: it is no T5X checkpoint. "
        "Give the folder checkpoint_<step> itself."
    )


def _open_legacy(
    store: Store, text: bytes, slots: bool
) -> tuple[dict[str, LazyArray], dict[str, str]]:
    place = f"{store.place}/{INDEX}"
    if text.startswith(b"model_checkpoint_path"):
        raise UserError(
            f"{store.place} is a TensorFlow checkpoint (Mesh TensorFlow's T5), which is not read. "
            "Use the T5X or Hugging Face release of that model; T5X can convert it."
        )
    index = read_index(text, place)
    version = index.get("version", _VERSION)
    if version != _VERSION:
        raise UserError(
            f"{place} is of version {version!r}; only {_VERSION} is read. Restore and save it "
            "with a current T5X."
        )
    tree = index.get("optimizer", index)
    if not isinstance(tree, dict):
        raise damaged(place, "its 'optimizer' is no tree")
    arrays: dict[str, LazyArray] = {}
    # Only slots may lack chunks of zeros.
    files: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for path, leaf in _leaves(tree):
        is_slot = path.startswith(f"{SLOTS}/")
        wanted = path.startswith((f"{TARGET}/", "params/")) or path == STEP
        if not wanted and not (slots and is_slot):
            continue
        if isinstance(leaf, dict) or (isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER)):
            files[is_slot][path] = path.replace("/", ".")
        elif isinstance(leaf, np.ndarray | np.generic | int | float):
            array = np.asarray(leaf)
            # Before ml_dtypes, numpy called bfloat16 "V2".
            array = array.view(BFLOAT16) if array.dtype == "V2" else array
            arrays[path] = held(array, f"{place}: {path}")
        else:
            raise damaged(place, f"{path} is neither an array nor the address of one")
    for zeros_left_out, names in files.items():
        arrays |= open_arrays(store, names, store.spec, zeros_left_out=zeros_left_out)
    return arrays, {path.removeprefix(f"{TARGET}/"): path.replace("/", ".") for path in arrays}


def read_index(text: bytes, place: str) -> dict[str, Any]:
    """The nested dictionaries of an index; arrays in it as numpy arrays."""
    try:
        index = serialization.msgpack_restore(text)
    except Exception as error:  # msgpack raises a dozen types, which all mean the same
        raise damaged(place, f"it is no msgpack index ({str(error)[:80]})") from error
    if not isinstance(index, dict):
        raise damaged(place, "it is no tree of names")
    return index


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path with '/', leaf); a TensorStore description counts as a leaf."""
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and not ("driver" in value and "metadata" in value):
            yield from _leaves(value, f"{path}/")
        elif value is not None:
            yield path, value


def _used_slots(theirs: Mapping[str, LazyArray], place: str) -> dict[str, LazyArray]:
    """The slots without the placeholders of shape (1,) that T5X writes for unused ones."""
    by_path: dict[str, dict[str, LazyArray]] = {}
    for name, array in theirs.items():
        path, _, slot = name.rpartition("/")
        if slot not in SLOT_NAMES or (slot == "m" and array.shape != (1,)):
            problem = "is Adafactor's momentum" if slot == "m" else "is no slot of Adafactor"
            raise UserError(
                f"{place}: {name} {problem}, which is not read; leave the optimiser's state out."
            )
        by_path.setdefault(path, {})[slot] = array
    used = {}
    for path, slots in by_path.items():
        factored = "v_row" in slots and slots["v_row"].shape != (1,)
        for slot in ("v_row", "v_col") if factored else ("v",):
            used[f"{path}/{slot}"] = slots[slot]
    return used


def _scanned_rules(theirs: Mapping[str, LazyArray], place: str) -> list[Rule]:
    """Rules for stacked layers; empty if the layers are separate."""
    stacks: dict[str, str] = {}
    for stack in _STACKS:
        for name in _SCANNED:
            norm = theirs.get(f"{stack}/{name}/pre_mlp_layer_norm/scale")
            if norm is None:
                continue
            stacks[stack] = name
            embedding = theirs.get("token_embedder/embedding")
            if embedding is None:
                raise damaged(place, "it has no token_embedder/embedding")
            if len(norm.shape) != 2 or norm.shape[:1] != embedding.shape[-1:]:
                raise UserError(
                    f"{place}: {stack}/{name} has norms of shape {list(norm.shape)}; only layers "
                    "stacked along axis 1 are read (T5X's param_scan_axis = 1)."
                )
    rules = []
    for rule in PARAMETER_RULES if stacks else ():
        stack = rule.ours.partition("/")[0]
        if "{i}" not in rule.ours:
            rules.append(Rule(rule.ours, rule.ours))
        elif stack in stacks:
            name = rule.ours.replace("layers_{i}", stacks[stack])
            view = "layer"
            if name in theirs and len(theirs[name].shape) == 4:
                view = "layer, heads first" if name.endswith("out/kernel") else "layer, heads last"
            rules.append(Rule(rule.ours, name, view))
    return rules


def _share_bias(theirs: dict[str, LazyArray], place: str) -> list[str]:
    """Replaces scalable_t5's equal tables of relative positions, one a layer, by one a stack."""
    notes = []
    for stack in _STACKS:
        for name in (f"{module}/{bias}" for module in _SCANNED for bias in _SCANNED_BIAS):
            stacked = theirs.pop(f"{stack}/{name}/rel_embedding", None)
            if stacked is None:
                continue
            if len(stacked.shape) != 3 or not stacked.shape[1]:
                raise damaged(
                    stacked.place,
                    f"its shape {list(stacked.shape)} is not [heads, layers, buckets]",
                )
            first, *others = (layer_of(stacked, 1, i) for i in range(stacked.shape[1]))
            if not all(same_values(first, other) for other in others):
                raise UserError(
                    f"{place}: the layers of the {stack} have relative positions of their own "
                    "(as umT5's have), but a model here has one table for a stack. It cannot be "
                    "read without changing what it computes."
                )
            theirs[f"{stack}/relpos_bias/rel_embedding"] = first
            notes.append(f"the {stack}'s layers have one table of relative positions")
    return notes


def _model_of_arrays(arrays: Mapping[str, LazyArray]) -> ModelConfig | None:
    """The architecture that shapes show; None if they do not show one."""
    try:
        vocab_size, d_model = arrays["token_embedder/embedding"].shape
        num_heads, buckets = arrays["encoder/relpos_bias/rel_embedding"].shape
        joined = arrays["encoder/layers_0/attention/query/kernel"].shape[1]
        gated = "encoder/layers_0/mlp/wi_0/kernel" in arrays
        depth = {
            stack: 1
            + max(int(m[1]) for p in arrays if (m := re.match(rf"{stack}/layers_(\d+)", p)))
            for stack in _STACKS
        }
        return ModelConfig(
            vocab_size=vocab_size,
            d_model=d_model,
            num_heads=num_heads,
            head_dim=joined // num_heads,
            d_ff=arrays["encoder/layers_0/mlp/wo/kernel"].shape[0],
            num_encoder_layers=depth["encoder"],
            num_decoder_layers=depth["decoder"],
            activations="gated-gelu" if gated else "relu",
            tied_output="decoder/logits_dense/kernel" not in arrays,
            relpos_buckets=buckets,
        )
    except (KeyError, ValueError, ZeroDivisionError, UserError):
        return None
