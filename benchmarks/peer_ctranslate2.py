"""CTranslate2's T5 or Llama on our weights, as users run it: the other side of a benchmark."""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter

from benchmarks.peer import write_huggingface
from instruct.models.model import AnyConfig

VERSION = f"ctranslate2 {ctranslate2.__version__}"


class _Words:
    """A tokenizer of V tokens called by their ids, with the attributes that converters read."""

    pad_token, eos_token, bos_token, unk_token = "0", "1", "0", "2"

    def __init__(self, size: int):
        self._size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(self._size)}

    def convert_ids_to_tokens(self, number: int) -> str:
        return str(number)


class _Converter(TransformersConverter):
    """The converter of docs/export.md, without a tokenizer."""

    def load_model(self, *arguments: Any, **settings: Any) -> Any:
        model = super().load_model(*arguments, **settings)
        if hasattr(model.config, "scale_decoder_outputs"):
            model.config.tie_word_embeddings = model.config.scale_decoder_outputs
        self._words = _Words(model.config.vocab_size)
        return model

    def load_tokenizer(self, *arguments: Any, **settings: Any) -> _Words:
        return self._words


class Peer:
    """`Translator` of an encoder-decoder, `Generator` of a decoder.

    Args:
        config: architecture.
        params: our parameters, which are converted.
        compute_type: 'float32' or 'int8'.
        threads: of one batch.
    """

    def __init__(self, config: AnyConfig, params: Any, compute_type: str, threads: int):
        self._is_encoder_decoder = config.layout == "encoder_decoder"
        kind = ctranslate2.Translator if self._is_encoder_decoder else ctranslate2.Generator
        with tempfile.TemporaryDirectory() as folder:
            source, target = pathlib.Path(folder, "source"), pathlib.Path(folder, "target")
            write_huggingface(source, config, params)
            _Converter(str(source)).convert(str(target), quantization=compute_type)
            settings = {"compute_type": compute_type, "intra_threads": threads}
            self._model: Any = kind(str(target), device="cpu", **settings)

    def generate(
        self, prompts: Sequence[Sequence[int]], batch_size: int, beams: int, steps: int
    ) -> np.ndarray:
        """The best sequence of each prompt [prompts, steps] int32, without an end.

        The library makes batches of `batch_size` prompts of similar length.
        """
        tokens = [list(map(str, prompt)) for prompt in prompts]
        common = {"beam_size": beams, "max_batch_size": batch_size}
        if self._is_encoder_decoder:
            lengths = {"min_decoding_length": steps, "max_decoding_length": steps}
            results = self._model.translate_batch(tokens, **common, **lengths, max_input_length=0)
            found = [result.hypotheses[0] for result in results]
        else:
            lengths = {"min_length": steps, "max_length": steps}
            results = self._model.generate_batch(
                tokens, **common, **lengths, include_prompt_in_result=False
            )
            found = [result.sequences_ids[0] for result in results]
        return np.array(found).astype(np.int32)
