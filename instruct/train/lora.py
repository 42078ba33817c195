"""LoRA in training: which kernels get adapters, and what they start from."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from instruct.errors import UserError
from instruct.fields import bounded, check_fields
from instruct.models.adapters import add_adapters, with_dropout
from instruct.train.trained import matching_paths

ATTENTION = r".*attention/(query|key|value|out)/kernel"
# Of random keys, beside the model's own initialisation.
_KEY_DATA = 0x10A


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (`instruct/models/adapters.py`); without a rank every parameter is trained.

    Attributes:
        rank: r; None or 0: no adapters. With None no other field may be set; 0 allows that, so
            that a study or a recipe can switch its adapters off.
        alpha: the adapter's product counts alpha / r times.
        dropout: of the adapter's input, in training; the tokens of a row share it.
        targets: regular expression of the whole names of kernels, as `run.py check` lists them
            ('decoder/layers_0/mlp/wo/kernel').
        rslora: alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023, arXiv 2312.03732).
    """

    rank: int | None = bounded(None, least=0, note=" (LORA_RANK)")
    alpha: float = bounded(16.0, above=0, note=" (LORA_ALPHA)")
    dropout: float = bounded(0.0, least=0, below=1, note=" (LORA_DROPOUT)")
    targets: str = ATTENTION
    rslora: bool = False

    def __post_init__(self) -> None:
        """Raises UserError for a wrong field, or one that has no effect without a rank."""
        check_fields(self)
        if self.rank is not None:
            return
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) != field.default:
                # A full finetuning in place of the adapters that were meant is seen too late.
                raise UserError(
                    f"LORA_{field.name.upper()} = {value!r} has no effect without LORA_RANK: every "
                    "parameter would be trained. Set LORA_RANK, such as 8, or leave "
                    f"LORA_{field.name.upper()} out; LORA_RANK = 0 switches adapters off."
                )

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied with."""
        rank = self.rank or 1
        return self.alpha / (math.sqrt(rank) if self.rslora else rank)

    def add(self, params: Any, seed: int) -> Any:
        """The parameters with fresh adapters, if there is a rank; shapes of abstract parameters.

        Raises UserError for targets that are no kernels of layers.
        """
        if not self.rank:
            return params
        targets, rank = matching_paths(params, self.targets, "LORA_TARGETS"), self.rank
        for path in sorted(targets):
            if not path.endswith("/kernel") or "/layers" not in path:
                raise UserError(
                    f"LORA_TARGETS = {self.targets!r} matches {path}; only kernels of layers take "
                    f"adapters. Let it end with '/kernel', such as {ATTENTION!r}, and match none "
                    "outside of the layers."
                )

        def add(params: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(seed), _KEY_DATA)
            return add_adapters(params, targets, rank, self.scale, key)

        is_abstract = isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct)
        return jax.eval_shape(add, params) if is_abstract else add(params)

    def loss(self, loss_fn: Callable[..., Any]) -> Callable[..., Any]:
        """`loss_fn(params, batch, dropout_key)` with the adapters' dropout."""
        if not self.rank or not self.dropout:
            return loss_fn
        return lambda params, batch, key: loss_fn(with_dropout(params, self.dropout), batch, key)

    def warnings(self, optimizer: Any, from_checkpoint: bool) -> list[str]:
        """Sentences about settings with which adapters learn little."""
        if not self.rank:
            return []
        found = []
        if getattr(optimizer, "name", "") == "adafactor" and optimizer.multiply_by_parameter_scale:
            found.append(
                "Adafactor's steps are relative to a parameter's size, and B of an adapter starts "
                "at zero: it will hardly move. Set OptimizerConfig.name = 'adamw'"
            )
        if not from_checkpoint:
            found.append(
                "adapters are trained on a base with random weights; give INITIAL_CHECKPOINT_PATH"
            )
        return found

    def recorded(self) -> dict[str, Any]:
        """Settings that affect results; {} without adapters, as runs of full finetuning record."""
        return {"lora": dataclasses.asdict(self)} if self.rank else {}
