"""T5X's checkpoints: the legacy layout (msgpack index and zarr arrays) and Orbax's.

    checkpoint_<step>/checkpoint                  index: nested names; small arrays are in it
                     /target.<path.with.dots>/    one zarr array per parameter
                     /state.param_states.<path>.<slot>/    Adafactor's unfactored slots
    checkpoint_<step>/state/_METADATA, ...        the same tree as Orbax writes it

T5X's names are ours. `examples/scalable_t5` stacks layers along axis 1 and keeps heads apart;
such checkpoints are read too, one layer at a time. The index also holds the
addresses that arrays had when they were written; they are ignored, arrays are read beside it.
"""

import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import serialization

from instruct.checkpoints.arrays import BFLOAT16, LazyArray, held, layer_of, same_values
from instruct.checkpoints.huggingface import RULES as PARAMETER_RULES
from instruct.checkpoints.native import open_orbax
from instruct.checkpoints.stores import Store, damaged, open_arrays, refuse_links
from instruct.checkpoints.weights import Checkpoint, Rule, translate
from instruct.errors import UserError
from instruct.models.config import SIZES, ModelConfig

KIND = "t5x"
INDEX = "checkpoint"
TARGET, SLOTS, STEP = "target", "state/param_states", "state/step"
SLOT_NAMES = ("m", "v", "v_row", "v_col")
# Names of the scanned stack inside encoder and decoder, and of its relative positions.
_SCANNED = ("encoder", "decoder", "layers")
_SCANNED_BIAS = ("relpos_bias", "relative_posemb")
_PLACEHOLDER = "PLACEHOLDER://"
_VERSION = 3

Tree = dict[str, Any]


def open_checkpoint(source: str | Store, slots: bool = False) -> Checkpoint:
    """Opens one step's folder; no parameters are read.

    Args:
        source: its path, `gs://bucket/path`, or an opened store.
        slots: Adafactor's state and the step's number as well.

    Raises:
        UserError: something is missing or damaged, or of a layout that is not read.
    """
    store = source if isinstance(source, Store) else Store(source)
    place = store.place
    if store.spec["driver"] == "file":
        refuse_links(pathlib.Path(place))
    leaves, places = _open_tree(store, slots)
    theirs = _below(leaves, TARGET) or _below(leaves, "params")
    if not theirs:
        raise UserError(f"{place} holds no parameters ({TARGET!r}) but {_roots(leaves)}.")
    named = _scanned_rules(theirs, place)
    notes = []
    if named:
        notes.append("layers are stacked along axis 1 there (scalable_t5), and are taken apart")
        theirs, shared = _shared_bias(theirs, place)
        notes += shared
    rules = named or [Rule(rule.ours, rule.ours) for rule in PARAMETER_RULES]
    arrays, names, unknown = translate(theirs, rules)
    step = leaves.get(STEP)
    own_slots = {}
    if slots:
        if named:
            raise UserError(
                f"{place}: Adafactor's slots of stacked layers are not read; leave them out."
            )
        own_slots = _used_slots(_below(leaves, SLOTS), place)
    model, known = model_of_arrays(arrays)
    if model is not None:
        assumed = [
            f"epsilon {model.norm_epsilon}",
            f"farthest position {model.relpos_max_distance}",
        ]
        assumed = (["GELU in the gate"] if model.gated else []) + assumed
        notes.append(f"a T5X checkpoint does not say all; assumed are {', '.join(assumed)}")
    return Checkpoint(
        kind=KIND,
        place=place,
        arrays=arrays,
        names={ours: places.get(name, name) for ours, name in names.items()},
        model=model,
        known_fields=known,
        unknown=unknown,
        slots=own_slots,
        step=_step_of(place) if step is None else _step_in(step),
        notes=tuple(notes),
    )


def _step_in(array: LazyArray) -> int:
    size = math.prod(array.shape)
    value = float(array.read().reshape(-1)[0]) if size == 1 else math.nan
    if not (value >= 0 and value.is_integer()):
        what = f"an array of {size:,}" if size != 1 else repr(value)
        raise damaged(array.place, f"the step is {what}, not a whole number")
    return int(value)


def _step_of(place: str) -> int:
    match = re.search(r"checkpoint_(\d+)/*$", place)
    return int(match[1]) if match else 0


def _below(leaves: Mapping[str, LazyArray], prefix: str) -> dict[str, LazyArray]:
    start = f"{prefix}/"
    return {n.removeprefix(start): leaf for n, leaf in leaves.items() if n.startswith(start)}


def _roots(leaves: Mapping[str, LazyArray]) -> str:
    return ", ".join(sorted({name.partition("/")[0] for name in leaves})) or "nothing"


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
    inline: dict[str, LazyArray] = {}
    files: dict[str, str] = {}
    for path, leaf in _leaves(tree):
        wanted = path.startswith((f"{TARGET}/", "params/")) or path == STEP
        if not wanted and not (slots and path.startswith(f"{SLOTS}/")):
            continue
        if isinstance(leaf, np.ndarray | np.generic):
            array = np.asarray(leaf)
            # Before ml_dtypes, numpy called bfloat16 "V2".
            array = array.view(BFLOAT16) if array.dtype == "V2" else array
            inline[path] = held(array, f"{place}: {path}")
        elif isinstance(leaf, dict) or (isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER)):
            files[path] = path.replace("/", ".")
        elif isinstance(leaf, int | float):
            inline[path] = held(np.asarray(leaf), f"{place}: {path}")
        else:
            raise damaged(place, f"{path} is neither an array nor where one lies")
    found = inline
    for elided in (False, True):
        some = {path: name for path, name in files.items() if path.startswith(SLOTS) == elided}
        found |= open_arrays(store.spec, some, store.place, store.context, zeros_left_out=elided)
    names = {path.removeprefix(f"{TARGET}/"): path.replace("/", ".") for path in found}
    return found, names


def read_index(text: bytes, place: str) -> Tree:
    """The nested dictionaries of an index; arrays in it as numpy arrays.

    Raises:
        UserError: it is no msgpack of arrays by name.
    """
    try:
        index = serialization.msgpack_restore(text)
    except Exception as error:  # msgpack raises a dozen types, all of which mean the same
        raise damaged(place, f"it is no msgpack index ({str(error)[:80]})") from error
    if not isinstance(index, dict):
        raise damaged(place, "it is no tree of names")
    return index


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path with '/', leaf); a TensorStore description counts as a leaf."""
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and not ("driver" in value and "metadata" in value):
            yield from _leaves(value, f"{path}/")
        elif value is not None:
            yield path, value


def _used_slots(theirs: Mapping[str, LazyArray], place: str) -> dict[str, LazyArray]:
    """Slots in use: without the placeholders of shape (1,) that T5X writes for the others."""
    by_path: dict[str, dict[str, LazyArray]] = {}
    for name, array in theirs.items():
        path, _, slot = name.rpartition("/")
        if slot not in SLOT_NAMES:
            raise UserError(
                f"{place}: {name} is no slot of Adafactor ({', '.join(SLOT_NAMES)}); leave the "
                "optimiser's state out."
            )
        by_path.setdefault(path, {})[slot] = array
    used = {}
    for path, slots in by_path.items():
        factored = slots["v_row"].shape != (1,) if "v_row" in slots else False
        if "m" in slots and slots["m"].shape != (1,):
            raise UserError(
                f"{place}: {path} has Adafactor's momentum, which is not kept here; leave the "
                "optimiser's state out."
            )
        for slot in ("v_row", "v_col") if factored else ("v",):
            used[f"{path}/{slot}"] = slots[slot]
    return used


def _scanned_rules(theirs: Mapping[str, LazyArray], place: str) -> list[Rule]:
    """Rules for stacked layers; empty if the layers are separate."""
    stacks = {}
    for stack in ("encoder", "decoder"):
        for name in _SCANNED:
            if f"{stack}/{name}/pre_mlp_layer_norm/scale" in theirs:
                stacks[stack] = name
    if not stacks:
        return []
    for stack, name in stacks.items():
        norm = theirs[f"{stack}/{name}/pre_mlp_layer_norm/scale"].shape
        width = theirs["token_embedder/embedding"].shape[-1:]
        if len(norm) != 2 or (norm[0],) != tuple(width):
            raise UserError(
                f"{place}: {stack}/{name} has norms of shape {list(norm)}; only layers stacked "
                "along axis 1 are read (T5X's param_scan_axis = 1)."
            )
    rules = []
    for rule in PARAMETER_RULES:
        stack = rule.ours.partition("/")[0]
        if "{i}" not in rule.ours:
            rules.append(Rule(rule.ours, rule.ours))
            continue
        if stack not in stacks:
            continue
        name = rule.ours.replace("layers_{i}", stacks[stack])
        view = "layer"
        if name in theirs and len(theirs[name].shape) == 4:
            view = "layer, heads first" if name.endswith("out/kernel") else "layer, heads last"
        rules.append(Rule(rule.ours, name, view))
    return rules


def _shared_bias(
    theirs: dict[str, LazyArray], place: str
) -> tuple[dict[str, LazyArray], list[str]]:
    """scalable_t5 has a table of relative positions in every layer; ours has one for a stack."""
    arrays, notes = dict(theirs), []
    for stack in ("encoder", "decoder"):
        for module in _SCANNED:
            for bias in _SCANNED_BIAS:
                stacked = arrays.pop(f"{stack}/{module}/{bias}/rel_embedding", None)
                if stacked is None:
                    continue
                first, *others = (layer_of(stacked, 1, i) for i in range(stacked.shape[1]))
                if not all(same_values(first, other) for other in others):
                    raise UserError(
                        f"{place}: the layers of the {stack} have relative positions of their own "
                        "(as umT5's have), this program's models one table for a stack. It cannot "
                        "be read without changing what it computes."
                    )
                arrays[f"{stack}/relpos_bias/rel_embedding"] = first
                notes.append(f"the {stack}'s layers have one table of relative positions")
    return arrays, notes


def model_of_arrays(
    arrays: Mapping[str, LazyArray],
) -> tuple[ModelConfig | None, frozenset[str]]:
    """(the architecture that shapes tell, its fields that they settle); (None, none) if too few."""

    def shape(path: str) -> tuple[int, ...]:
        return arrays[path].shape

    try:
        vocab_size, d_model = shape("token_embedder/embedding")
        num_heads, buckets = shape("encoder/relpos_bias/rel_embedding")
        joined = shape("encoder/layers_0/attention/query/kernel")[1]
        gated = "encoder/layers_0/mlp/wi_0/kernel" in arrays
        d_ff = shape("encoder/layers_0/mlp/wo/kernel")[0]
        depth = {
            stack: 1
            + max(int(m[1]) for p in arrays if (m := re.match(rf"{stack}/layers_(\d+)", p)))
            for stack in ("encoder", "decoder")
        }
        model = ModelConfig(
            vocab_size=vocab_size,
            d_model=d_model,
            num_heads=num_heads,
            head_dim=joined // num_heads,
            d_ff=d_ff,
            num_encoder_layers=depth["encoder"],
            num_decoder_layers=depth["decoder"],
            activations="gated-gelu" if gated else "relu",
            tied_output="decoder/logits_dense/kernel" not in arrays,
            relpos_buckets=buckets,
        )
    except (KeyError, ValueError, ZeroDivisionError, UserError):
        return None, frozenset()
    known = {*SIZES, "tied_output", "relpos_buckets"} | (set() if gated else {"activations"})
    return model, frozenset(known)
