"""PEFT's LoRA folders: adapters under the names of a Hugging Face model, without that model.

    adapter_config.json          settings; `base_model_name_or_path` says which model they adapt
    adapter_model.safetensors    base_model.model.NAME.lora_A.weight [r, in] and .lora_B.weight
                                 [out, r]

NAME is a kernel's in the base model, whose `Family` gives ours. Settings of PEFT under which these
two matrices do not say everything (DoRA, biases, other modules, ranks by name) are refused.
"""

import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from instruct.checkpoints import huggingface, safetensors_files
from instruct.checkpoints.adapter_arrays import Adapter, merged, merged_note
from instruct.checkpoints.arrays import LazyArray, held, transposed
from instruct.checkpoints.family import Family
from instruct.checkpoints.folders import file_inside, json_bytes, new_folder, read_json
from instruct.checkpoints.huggingface_config import FAMILIES, config_of_model
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.weights import USED, Checkpoint, KeyReport, KeyRow, model_shapes
from instruct.errors import UserError
from instruct.models.model import AnyConfig

KIND = "peft"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MATRIX = re.compile(r"(.*)\.lora_(A|B)\.weight")
# Settings that change what the matrices mean -> values under which they do not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": ([],),
    "trainable_token_indices": ([], {}),
    "target_parameters": ([],),
    "alora_invocation_tokens": ([],),
    # Others change the base model's weights.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
_TASKS = {"encoder_decoder": "SEQ_2_SEQ_LM", "decoder_only": "CAUSAL_LM"}


def is_folder(folder: pathlib.Path) -> bool:
    """Whether a folder holds an adapter without a model."""
    weights = (huggingface.SINGLE, huggingface.INDEX, "pytorch_model*.bin*")
    has_weights = any(True for pattern in weights for _ in folder.glob(pattern))
    adapter = (WEIGHTS, huggingface.ADAPTER)
    return not has_weights and all((folder / name).is_file() for name in adapter)


def base_of(folder: pathlib.Path) -> str:
    """Path or name of the base model that a folder records; "" without one."""
    return str(
        read_json(file_inside(folder, huggingface.ADAPTER)).get("base_model_name_or_path") or ""
    )


def open_checkpoint(folder: pathlib.Path, base: Checkpoint) -> Checkpoint:
    """The base model with the folder's adapters merged into it; reads no weights.

    Raises UserError if the folder is damaged, does not fit the base, or is more than plain LoRA.
    """
    settings = read_json(file_inside(folder, huggingface.ADAPTER))
    if settings.get("peft_type") != "LORA":
        huggingface.adapter_note(folder)  # raises
    _check_settings(settings, folder)
    if base.model is None:
        raise UserError(f"{base.place} does not record its model; give another --base.")
    family, names, matrices, unknown = _family(base.model), {}, {}, {}
    paths = {module: path for path, module in _modules(base.model).items()}
    for name, array in safetensors_files.read_file(file_inside(folder, WEIGHTS)).items():
        match = _MATRIX.fullmatch(name.removeprefix(_PREFIX))
        path = paths.get(family.current_name(match[1])) if match else None
        if match is None or path not in base.arrays:
            unknown[name] = array
        else:
            matrices[path, match[2]], names[path] = transposed(array), match[1]
    scale = _scale(settings, folder)
    adapters = {}
    for path, name in names.items():
        kernel, a, b = base.arrays[path], matrices.get((path, "A")), matrices.get((path, "B"))
        if a is None or b is None:
            raise UserError(f"{folder / WEIGHTS} has only one of lora_A and lora_B of {name}.")
        rank = b.shape[0] if b.shape else 0
        if (a.shape, b.shape) != ((kernel.shape[0], rank), (rank, kernel.shape[1])) or not rank:
            raise UserError(
                f"{folder / WEIGHTS}: {name} has matrices {list(a.shape[::-1])} and "
                f"{list(b.shape[::-1])}, but the kernel in {base.place} is "
                f"{list(kernel.shape[::-1])}. Give the model that was adapted (--base)."
            )
        if settings.get("r") not in (None, rank):  # PEFT divides by this one, and loads no other
            raise UserError(
                f"{folder / WEIGHTS}: the matrices of {name} have rank {rank}, but "
                f"{huggingface.ADAPTER} says r = {settings['r']!r}; copy both files again."
            )
        adapters[path] = Adapter(kernel, a, b, held(np.asarray(scale(rank), np.float32), name))
    if not adapters and not unknown:
        raise UserError(f"{folder / WEIGHTS} holds no adapter.")
    return Checkpoint(
        kind=KIND,
        place=str(folder),
        arrays=base.arrays | {path: merged(adapter) for path, adapter in adapters.items()},
        names=base.names,
        model=base.model,
        assumed_fields=base.assumed_fields,
        unknown=base.unknown | unknown,
        copies=base.copies,
        ignored=base.ignored,
        vocabulary=vocabulary_of(folder) or base.vocabulary,
        notes=(*base.notes, f"base model: {base.kind} {base.place}", merged_note(adapters)),
        adapters=adapters,
        base=base.place,
    )


def _check_settings(settings: Mapping[str, Any], folder: pathlib.Path) -> None:
    for name, plain in _PLAIN.items():
        value = settings.get(name)
        if value is not None and value not in plain:
            raise UserError(
                f"{folder / huggingface.ADAPTER}: {name} is {value!r:.80}, which is not read; an "
                "adapter must be plain LoRA. Merge it with peft (merge_and_unload) and give the "
                "merged folder."
            )


def _scale(settings: Mapping[str, Any], folder: pathlib.Path) -> Any:
    """rank -> what PEFT multiplies with."""
    alpha = settings.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise UserError(f"{folder / huggingface.ADAPTER}: lora_alpha is {alpha!r}, not a number.")
    by_root = settings.get("use_rslora")
    if not isinstance(by_root, bool | None):
        raise UserError(
            f"{folder / huggingface.ADAPTER}: use_rslora is {by_root!r}; it must be true or false."
        )
    return lambda rank: alpha / (math.sqrt(rank) if by_root else rank)


def _family(model: AnyConfig) -> Family:
    """The class of transformers whose names an adapter of the model has."""
    return FAMILIES[config_of_model(model, np.dtype(np.float32))["model_type"]]


def _modules(model: AnyConfig) -> dict[str, str]:
    """Our name of every kernel -> its module in transformers' class."""
    kernels = [path for path in model_shapes(model) if path.endswith("/kernel")]
    names = _family(model).their_names(kernels)
    return {path: name.removesuffix(".weight") for path, (name, _) in names.items()}


def write_checkpoint(
    target: pathlib.Path,
    opened: Checkpoint,
    dtype: np.dtype,
    base: str,
    card_fn: Callable[[Sequence[str]], str] = lambda notes: "",
) -> KeyReport:
    """Writes the adapters of a checkpoint as a folder that `peft` loads onto `base`, atomically.

    `card_fn` maps notes to the text of README.md; "" for none.

    Raises UserError if there are none, or PEFT cannot say what they are.
    """
    if not opened.adapters:
        raise UserError(
            f"{opened.place} has no adapters to write as {KIND}: it was not trained with LORA_RANK."
        )
    if not base:
        raise UserError(
            f"{opened.place} does not record which model its adapters belong to; give "
            "--base=FOLDER, the Hugging Face folder or name that training started from."
        )
    assert opened.model is not None
    modules = _modules(opened.model)
    arrays: dict[str, LazyArray] = {}
    rows = []
    for path, adapter in opened.adapters.items():
        for letter, matrix in (("A", adapter.a), ("B", adapter.b)):
            name = f"{_PREFIX}{modules[path]}.lora_{letter}.weight"
            arrays[name] = transposed(matrix)
            ours = f"{path.removesuffix('kernel')}lora_{letter.lower()}"
            rows.append(KeyRow(USED, ours, name, matrix.shape, matrix.shape))
    config = _config(opened, modules, base)
    note = f"adapters only; they are loaded onto {base}, and the tokenizer is that model's"
    card = card_fn((note,))
    size = sum(array.size for array in arrays.values()) * dtype.itemsize
    with new_folder(target, size) as folder:
        ordered = dict(sorted(arrays.items()))
        safetensors_files.write_file(folder / WEIGHTS, ordered, dtype, {"format": "pt"})
        (folder / huggingface.ADAPTER).write_bytes(json_bytes(config))
        if card:
            (folder / huggingface.CARD).write_text(card, "utf-8")
    source = f"{opened.kind} checkpoint {opened.place}"
    return KeyReport(source, f"{KIND} folder {target}", tuple(rows), (note,))


def _config(opened: Checkpoint, modules: Mapping[str, str], base: str) -> dict[str, Any]:
    """The entries of adapter_config.json that decide, and those that a reader may look for."""
    known = {(adapter.rank, float(adapter.scale.read())) for adapter in opened.adapters.values()}
    if len(known) > 1:
        raise UserError(
            f"{opened.place} has adapters of several ranks or scales ({sorted(known)}), which one "
            "adapter_config.json cannot say."
        )
    ((rank, scale),) = known
    adapted = {modules[path] for path in opened.adapters}
    # PEFT adapts every module whose name ends so.
    ends = {name.rpartition(".")[2] for name in adapted}
    chosen = {name for name in modules.values() if name.rpartition(".")[2] in ends}
    return {
        "peft_type": "LORA",
        "task_type": _TASKS[opened.model.layout] if opened.model else None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": _alpha(scale, rank),
        "lora_dropout": 0.0,
        "target_modules": sorted(ends if chosen == adapted else adapted),
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _alpha(scale: float, rank: int) -> float | int:
    """The alpha that was meant: the shortest number whose alpha / r is the float32 `scale`."""
    exact = scale * rank
    short = float(f"{exact:.6g}")
    alpha = short if np.float32(short / rank) == np.float32(scale) else exact
    return int(alpha) if alpha == int(alpha) else alpha
