"""`open_model`: a checkpoint of any kind with its network, vocabulary and frame of prompts."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax

from instruct import distributed
from instruct.checkpoints.convert import generation_settings
from instruct.checkpoints.loading import find_checkpoint, load_newest, load_params, trained_run
from instruct.data.config import DataConfig
from instruct.data.vocab import Vocabulary, check_embedding_rows, load_vocabulary
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.generation_settings import decode_config, sequence_notes
from instruct.eval.eval_config import trained_data
from instruct.files import absolute_path, any_path
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.model_interface import Model, Params
from instruct.models.model import AnyConfig, make_model
from instruct.prompts.frame import Frame

_INPUTS_LENGTH = 512  # of a checkpoint that records none

Say = Callable[..., None]  # takes lines for the user


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A checkpoint without its parameters, which `load` reads.

    Attributes:
        path: a run's or checkpoint's folder, as given.
        step: of the checkpoint, as given; None for the newest.
        folder: of the checkpoint.
        network: the model.
        vocabulary: of prompts and answers.
        data: frame, layout and lengths of prompts, as trained.
        mesh: over all devices.
    """

    path: str
    step: int | None
    folder: pathlib.Path
    network: Model
    vocabulary: Vocabulary
    data: DataConfig
    mesh: jax.sharding.Mesh

    @property
    def frame(self) -> Frame:
        """What surrounds a prompt and its answer."""
        return self.data.frame

    @property
    def inputs_length(self) -> int:
        """Most tokens of a prompt, those of the frame included."""
        return self.data.example_lengths[0]

    def decode_config(
        self, decode: DecodeConfig | None, max_decode_steps: int | None, say: Say
    ) -> DecodeConfig:
        """The strategy, with the tokens that end this model's answers.

        Args:
            decode: None: that of the checkpoint's generation_config.json, else greedy.
            max_decode_steps: longest answer in tokens; None: that of the strategy.
        """
        end_ids = self.vocabulary.stop_ids
        if decode is None:
            generation = generation_settings(self.folder)
            one_sequence = not self.data.batch_layout.encoder_keys
            decode = decode_config(generation, total_lengths=one_sequence)
            if one_sequence:
                say(*sequence_notes(generation, decode))
            if generation.get("eos_token_id") is not None:
                # A base model's settings do not know the end of its chat template's turns.
                end_ids = decode.end_ids + (end_ids if self.frame.chat is not None else ())
        steps = max_decode_steps or decode.max_decode_steps
        return dataclasses.replace(decode.ending_with(end_ids), max_decode_steps=steps)

    def load(self, strict: bool, say: Say) -> tuple[pathlib.Path, Params]:
        """(folder of the checkpoint that was read, its parameters on the mesh).

        Args:
            strict: a damaged newest checkpoint is an error; otherwise the newest whole one is read.
        """
        abstract = self.network.abstract_params()
        placed = with_shardings(abstract, param_shardings(self.mesh, abstract))
        if self.step is None and distributed.num_processes() == 1:
            return load_newest(self.path, placed, strict=strict, say=say)
        return self.folder, load_params(self.folder, placed)


def open_model(
    path: str,
    entry: str,
    *,
    step: int | None = None,
    model: AnyConfig | None = None,
    vocabulary: str | None = None,
    chat_template: bool | None = None,
    inputs_length: int | None = None,
    mesh: MeshConfig | None = None,
) -> OpenedModel:
    """Opens a checkpoint to answer prompts; reads no weights.

    Args:
        path: folder of a training run or of a checkpoint (this program's, T5X's or Hugging Face's,
            adapters of PEFT).
        entry: the function, as gin calls it, whose arguments replace what is not recorded; "" for
            Python.
        step: of a folder with several checkpoints; None for the newest.
        model, vocabulary, chat_template: None: as recorded.
        inputs_length: most tokens of a prompt; None: as in training, else 512.
        mesh: over all devices.

    Raises:
        UserError: there is no checkpoint, or the model or vocabulary is not recorded or does not
            fit.
    """
    # A training beside it may save while the processes look.
    found = distributed.gather_json({"folder": str(find_checkpoint(path, step))})
    folder = absolute_path(found[0]["folder"])
    run = trained_run(run_folder_of(path), folder, entry)
    network = make_model(model or run.model())
    vocabulary = vocabulary or run.setting("vocabulary")
    words = load_vocabulary(vocabulary)
    check_embedding_rows(words, network.config.vocab_size)
    length = inputs_length or run.config().get("data.feature_lengths.inputs") or _INPUTS_LENGTH
    lengths = {"inputs": length, "targets": 2}
    data = trained_data(run, network.config.layout, vocabulary, lengths, chat_template)
    return OpenedModel(path, step, folder, network, words, data, make_mesh(mesh or MeshConfig()))


def run_folder_of(model_dir: str) -> pathlib.Path:
    """Folder of the run that a MODEL_DIR, or a checkpoint in it, belongs to."""
    folder = any_path("MODEL_DIR", model_dir).absolute()
    candidates = (folder, *folder.parents[:2])
    return next((path for path in candidates if (path / "run.json").is_file()), folder)
