"""A checkpoint's model as `infer` and `serve` use it: how it reads prompts, then its parameters."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax.sharding import Mesh

from instruct import distributed
from instruct.checkpoints.convert import generation_settings
from instruct.checkpoints.loading import find_checkpoint, load_newest, load_params, trained_run
from instruct.data.vocab import Vocabulary, check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.generation_settings import decode_config
from instruct.eval.decoding.online import OnlineDecoder
from instruct.eval.eval_config import trained_data
from instruct.eval.prompt_lines import Prompt
from instruct.files import absolute_path, any_path
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.model_interface import Model
from instruct.models.model import AnyConfig, make_model
from instruct.prompts.chat_template import TemplateRefusal
from instruct.prompts.frame import Frame

_MOST_NAMED = 10  # most truncated prompts to name; the others are counted


@dataclasses.dataclass(frozen=True)
class PromptEncoder:
    """Encodes a prompt to token ids in its frame, truncated to `inputs_length`."""

    frame: Frame
    inputs_length: int

    @property
    def num_uncounted(self) -> int:
        """Tokens of a prompt that INPUTS_LENGTH does not count: the first of a decoder's."""
        return int(self.frame.one_sequence)

    @property
    def counted_length(self) -> int:
        """INPUTS_LENGTH: the most tokens of a prompt, without those that it does not count."""
        return self.inputs_length - self.num_uncounted

    def encode(self, prompt: str) -> tuple[list[int], int]:
        """(token ids, truncated; number of tokens before truncation, those of the frame included).

        What follows a prompt, such as EOS, follows a truncated one too, unless the chat template
        refuses the shorter text.
        """
        ids = self.frame.prompt(prompt)
        if len(ids) <= self.inputs_length:
            return ids, len(ids)
        try:
            return self.frame.cut_prompt(prompt, self.inputs_length), len(ids)
        except UserError:
            return ids[: self.inputs_length], len(ids)

    def refusal(self, prompt: str) -> str:
        """Why the chat template cannot write a prompt; "" if it can, or there is none.

        Nothing is tokenized: `encode` does that once for each prompt, and refuses no other.
        """
        try:
            if self.frame.chat is not None:
                self.frame.chat.prompt(prompt)
        except TemplateRefusal as error:
            return error.reason
        except UserError as error:  # fails on this text
            return str(error)
        return ""

    def describe_truncated(self, prompts: Iterable[Prompt]) -> str:
        """Names prompts that are longer than `inputs_length`, and the fix; "" if there are none."""
        lengths = [(prompt.location, self.encode(prompt.text)[1]) for prompt in prompts]
        long = [(location, length) for location, length in lengths if length > self.inputs_length]
        if not long:
            return ""
        locations = ", ".join(location for location, _ in long[:_MOST_NAMED])
        more = len(long) - _MOST_NAMED
        locations += f" and {more:,} more" if more > 0 else ""
        longest = max(length for _, length in long)
        subject = f"{len(long):,} prompts have up to" if len(long) > 1 else "the prompt has"
        needed = longest - self.num_uncounted
        counted = "after the first" if self.num_uncounted else "with EOS"
        return (
            f"{locations}: {subject} {needed:,} tokens {counted}, the model reads "
            f"{self.counted_length:,}: the end is cut off. "
            f"--gin.INPUTS_LENGTH={needed} reads all of it"
        )


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model with its parameters on a mesh.

    Attributes:
        folder: of the checkpoint.
        decode: the strategy, with the tokens that end an answer.
    """

    folder: pathlib.Path
    network: Model
    params: Any
    mesh: Mesh
    decode: DecodeConfig
    vocabulary: Vocabulary
    encoder: PromptEncoder

    def online_decoder(self, batching: BatchConfig | None, **options: int) -> OnlineDecoder:
        """A decoder of prompts that come and go, as long as the encoder's; see `OnlineDecoder`."""
        longest = self.encoder.inputs_length
        what = self.network, self.decode, self.params, longest
        return OnlineDecoder(*what, batching, self.mesh, **options)


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """A checkpoint whose parameters are not loaded yet: its model, and how it reads prompts."""

    model_dir: str
    step: int | None
    folder: pathlib.Path
    network: Model
    vocabulary: Vocabulary
    encoder: PromptEncoder

    def load(
        self,
        decode: DecodeConfig | None,
        max_decode_steps: int | None,
        mesh: MeshConfig | None,
        strict: bool,
        say: Callable[..., None],
    ) -> LoadedModel:
        """Reads the parameters onto the devices.

        Args:
            decode: the strategy; None: that of the checkpoint's generation_config.json, else
                greedy. EOS is that of the vocabulary unless generation_config.json sets another.
            max_decode_steps: longest answer in tokens; None: that of the strategy.
            mesh: over all devices.
            strict: refuse a damaged newest checkpoint, else the newest whole one is used.
            say: takes lines on what acts otherwise than the checkpoint's files say.
        """
        frame, folder = self.encoder.frame, self.folder
        device_mesh = make_mesh(mesh or MeshConfig())
        abstract = self.network.abstract_params()
        placed = with_shardings(abstract, param_shardings(device_mesh, abstract))
        end_ids = self.vocabulary.stop_ids
        if decode is None:
            generation = generation_settings(folder)
            # Set before the lengths are compared: a folder may have a least one alone.
            length = {} if max_decode_steps is None else {"max_new_tokens": max_decode_steps}
            decode = decode_config(generation | length, total_lengths=frame.one_sequence)
            if frame.one_sequence:
                say(*sequence_notes(generation, decode))
            if generation.get("eos_token_id") is not None:
                # A base model's settings do not know the end of its chat template's turns.
                end_ids = decode.end_ids + (end_ids if frame.chat is not None else ())
        steps = max_decode_steps or decode.max_decode_steps
        decode = dataclasses.replace(decode.ending_with(end_ids), max_decode_steps=steps)
        if self.step is None and distributed.num_processes() == 1:
            folder, params = load_newest(self.model_dir, placed, strict=strict, say=say)
        else:
            params = load_params(folder, placed)
        vocabulary, encoder = self.vocabulary, self.encoder
        return LoadedModel(folder, self.network, params, device_mesh, decode, vocabulary, encoder)


def find_model(
    model_dir: str,
    entry: str,
    model: AnyConfig | None = None,
    vocabulary: str | None = None,
    chat_template: bool | None = None,
    step: int | None = None,
    inputs_length: int | None = None,
) -> FoundModel:
    """Finds a checkpoint and what its run records; reads no parameters.

    Args:
        model_dir: folder of a training run or of a checkpoint (this program's, T5X's or Hugging
            Face's).
        entry: the function, as gin calls it, whose argument replaces what is not recorded.
        model, vocabulary, chat_template, step, inputs_length: see `infer.infer`.

    Raises:
        UserError: no checkpoint, or a model or vocabulary that does not fit.
    """
    # A training beside it may save while the processes look.
    found = distributed.gather_json({"folder": str(find_checkpoint(model_dir, step))})
    folder = absolute_path(found[0]["folder"])
    run = trained_run(run_folder_of(model_dir), folder, entry)
    network = make_model(model or run.model())
    vocabulary = vocabulary or run.setting("vocabulary")
    words = load_vocabulary(vocabulary)
    check_embedding_rows(words, network.config.vocab_size)
    length = inputs_length
    if length is None:
        length = run.config().get("data.feature_lengths.inputs") or 512
    lengths = {"inputs": length, "targets": 2}
    data = trained_data(run, network.config.layout, vocabulary, lengths, chat_template)
    encoder = PromptEncoder(data.frame, data.example_lengths[0])
    return FoundModel(model_dir, step, folder, network, words, encoder)


def sequence_notes(generation: Mapping[str, Any], decode: DecodeConfig) -> list[str]:
    """How a decoder's generation settings act otherwise than in transformers."""
    notes = []
    if "max_length" in generation and "max_new_tokens" not in generation:
        notes.append(
            f"note: max_length = {generation['max_length']} of generation_config.json counts the "
            f"prompt and is left out; answers have at most {decode.max_decode_steps:,} tokens "
            "(MAX_DECODE_STEPS)."
        )
    rules = decode.rules_set().keys() & {"repetition_penalty", "no_repeat_ngram_size"}
    if rules:
        notes.append(
            f"note: {', '.join(sorted(rules))} of generation_config.json see the answer, not the "
            "prompt."
        )
    return notes


def run_folder_of(model_dir: str) -> pathlib.Path:
    """Folder of the run that a MODEL_DIR, or a checkpoint in it, belongs to."""
    folder = any_path("MODEL_DIR", model_dir).absolute()
    candidates = (folder, *folder.parents[:2])
    return next((path for path in candidates if (path / "run.json").is_file()), folder)
