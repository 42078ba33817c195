"""The batch contract: keys, shapes and dtypes of a training batch, in two layouts.

Keys are SeqIO's (`seqio.feature_converters`). B rows, S source tokens, T target tokens; all arrays
int32, all padded with 0 on the right. Padding is where the segment id is 0: token 0 may be text.

`encoder_decoder` (EncDecFeatureConverter). Two examples, inputs [7, 8, 1] and [9, 1], targets
[3, 1] and [4, 5, 1], packed into one row of S = 6 and T = 6:

    encoder_input_tokens    7 8 1 9 1 0
    encoder_segment_ids     1 1 1 2 2 0
    encoder_positions       0 1 2 0 1 0
    decoder_target_tokens   3 1 4 5 1 0
    decoder_input_tokens    0 3 0 4 5 0     targets shifted right inside each segment
    decoder_loss_weights    1 1 1 1 1 0
    decoder_segment_ids     1 1 2 2 2 0
    decoder_positions       0 1 0 1 2 0
    decoder_task_ids        4 4 9 9 9 0     1 + the leaf's number in the mixture (ours, not SeqIO's)

Segment k of the encoder belongs to segment k of the decoder: ids number the examples, so an example
with an empty source has its own. A model with another start token than 0 puts it at position 0.

`decoder_only` (DecoderFeatureConverter, PrefixLMFeatureConverter). Each example is one sequence
start + inputs + targets: `decoder_input_tokens` is the sequence without its last token,
`decoder_target_tokens` without its first. A row has T = inputs + targets of TASK_FEATURE_LENGTHS.
The examples above, S + T = 12, with the start token 0 (T5's vocabularies; SeqIO's shift):

    decoder_target_tokens     7 8 1 3 1 9 1 4 5 1 0 0
    decoder_input_tokens      0 7 8 1 3 0 9 1 4 5 0 0
    decoder_loss_weights      0 0 0 1 1 0 0 1 1 1 0 0     1 where the target is of the answer
    decoder_causal_attention  1 1 1 1 0 1 1 1 0 0 0 0     1 where the input is of the prefix
    decoder_segment_ids       1 1 1 1 1 2 2 2 2 2 0 0
    decoder_positions         0 1 2 3 4 0 1 2 3 4 0 0
    decoder_task_ids          4 4 4 4 4 9 9 9 9 9 0 0

With a BOS id as the start token (Llama, Gemma) it stands in place of the two 0s. Without a start
token (Qwen) the first inputs token is an input only; inputs [7, 8] and [9] without EOS:

    decoder_target_tokens     8 3 1 4 5 1 0 0
    decoder_input_tokens      7 8 3 9 4 5 0 0
    decoder_loss_weights      0 1 1 1 1 1 0 0
    decoder_causal_attention  1 1 0 1 0 0 0 0
    decoder_segment_ids       1 1 1 2 2 2 0 0
    decoder_positions         0 1 2 0 1 2 0 0
    decoder_task_ids          4 4 4 9 9 9 0 0

A causal model ignores `decoder_causal_attention`; in a prefix-LM the positions with 1 see all
others with 1 of their segment. With loss on all tokens every target weighs 1 and
`decoder_causal_attention` is 0, since a position that sees its target has nothing to predict.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

ENCODER_INPUT_TOKENS = "encoder_input_tokens"
ENCODER_SEGMENT_IDS = "encoder_segment_ids"
ENCODER_POSITIONS = "encoder_positions"
DECODER_TARGET_TOKENS = "decoder_target_tokens"
DECODER_INPUT_TOKENS = "decoder_input_tokens"
DECODER_LOSS_WEIGHTS = "decoder_loss_weights"
DECODER_CAUSAL_ATTENTION = "decoder_causal_attention"
DECODER_SEGMENT_IDS = "decoder_segment_ids"
DECODER_POSITIONS = "decoder_positions"
DECODER_TASK_IDS = "decoder_task_ids"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrays of a batch.

    Attributes:
        name: as in `DataConfig.layout` and the `layout` of a model's configuration.
        encoder_keys: arrays [B, S]; () if inputs and targets are one sequence.
        decoder_keys: arrays [B, T].
    """

    name: str
    encoder_keys: tuple[str, ...]
    decoder_keys: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return self.encoder_keys + self.decoder_keys

    def row_lengths(self, inputs: int, targets: int) -> tuple[int, int]:
        """(S, T) of rows for these lengths of TASK_FEATURE_LENGTHS; S is 0 without an encoder."""
        return (inputs, targets) if self.encoder_keys else (0, inputs + targets)

    def shapes(self, batch_size: int, inputs: int, targets: int) -> dict[str, tuple[int, int]]:
        """Shape of every array, for these lengths of TASK_FEATURE_LENGTHS."""
        source, target = self.row_lengths(inputs, targets)
        encoder = dict.fromkeys(self.encoder_keys, (batch_size, source))
        return encoder | dict.fromkeys(self.decoder_keys, (batch_size, target))

    def check(self, batch: Mapping[str, Any]) -> None:
        """Raises ValueError unless all keys are there, int32, and agree on B, S and T."""
        missing = sorted(set(self.keys) - set(batch))
        extra = sorted(set(batch) - set(self.keys))
        if missing or extra:
            raise ValueError(f"batch keys: missing {missing}, unexpected {extra}")
        rows, targets = batch[DECODER_TARGET_TOKENS].shape
        inputs = batch[ENCODER_INPUT_TOKENS].shape[1] if self.encoder_keys else 0
        for key, shape in self.shapes(rows, inputs, targets).items():
            if tuple(batch[key].shape) != shape or str(batch[key].dtype) != "int32":
                actual = f"{batch[key].dtype}{tuple(batch[key].shape)}"
                raise ValueError(f"batch[{key!r}] is {actual}, expected int32{shape}")


_DECODER_KEYS = (
    *(DECODER_TARGET_TOKENS, DECODER_INPUT_TOKENS, DECODER_LOSS_WEIGHTS),
    *(DECODER_SEGMENT_IDS, DECODER_POSITIONS, DECODER_TASK_IDS),
)
ENCODER_DECODER = Layout(
    "encoder_decoder",
    (ENCODER_INPUT_TOKENS, ENCODER_SEGMENT_IDS, ENCODER_POSITIONS),
    _DECODER_KEYS,
)
DECODER_ONLY = Layout("decoder_only", (), (*_DECODER_KEYS, DECODER_CAUSAL_ATTENTION))
LAYOUTS = {layout.name: layout for layout in (ENCODER_DECODER, DECODER_ONLY)}
