"""Checkpoints as the model `instruct` of EleutherAI's lm-evaluation-harness (extra: lm_eval).

    python -m instruct.eval.lm_eval.model --model_args model_dir=runs/a --tasks mmlu

takes the flags of `lm_eval`, with `--model instruct` and `--batch_size auto` as defaults. The
harness only knows registered models, so from Python call `register()` first:

    from instruct.eval.lm_eval.model import register
    register()
    lm_eval.simple_evaluate(model="instruct", model_args={"model_dir": "runs/a"}, tasks=["mmlu"])
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from instruct.checkpoints.loading import (
    find_checkpoint,
    load_params,
    params_fingerprint,
    trained_run,
)
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.eval_config import trained_data
from instruct.eval.lm_eval.adapter import AdapterConfig, ContinuationScorer, RequestAnswerer
from instruct.eval.loaded_model import run_folder_of
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.models.model import make_model

NAME = "instruct"
_REQUESTS_TOGETHER = 1024  # answered, then put into the harness's cache
_DEFAULT_LENGTH = 512


def load_answerer(
    model_dir: str,
    step: int | None = None,
    vocabulary: str | None = None,
    chat_template: bool | None = None,
    max_length: int | None = None,
    max_gen_toks: int = 256,
    score_eos: bool | None = None,
    seed: int = 0,
    batch_size: int | str | None = None,
    max_batch_size: int | None = None,
    device: str | None = None,
) -> tuple[RequestAnswerer, dict[str, Any]]:
    """Loads a checkpoint; takes the arguments of `--model_args`.

    Args:
        model_dir: folder of a training run or of a checkpoint (this program's, T5X's or Hugging
            Face's).
        step: of the checkpoint; None for the newest.
        vocabulary: see `instruct.data.vocab`; None: from the checkpoint.
        chat_template: contexts as turns of the vocabulary's chat template; None: as trained.
        max_length: see `AdapterConfig`; None: the length of inputs in training, else 512.
        max_gen_toks, seed: see `AdapterConfig`.
        score_eos: see `AdapterConfig`; None: unless context and continuation are one text.
        batch_size: rows of a batch, at most `max_batch_size`; None and "auto": 32.
        device: ignored. The harness sets "cuda:0" by default; JAX uses the accelerators it finds,
            or those of the environment variable JAX_PLATFORMS.

    Returns:
        The answerer, and facts on the checkpoint for the harness's results.

    Raises:
        UserError: no checkpoint, no vocabulary, or a value out of range.
    """
    if jax.process_count() > 1:
        raise UserError("lm_eval runs in one process; start it on one host")
    folder = find_checkpoint(str(model_dir), step)
    run = trained_run(run_folder_of(str(model_dir)), folder, NAME)
    settings = run.config()
    words = vocabulary or run.info.get("vocabulary") or settings.get("data.vocabulary")
    if not words:
        raise UserError(f"{folder} does not say its vocabulary; add vocabulary=... to model_args")
    if not isinstance(run.info.get("model"), Mapping):
        raise UserError(
            f"{folder} does not say what its model looks like: the run's run.json is missing; give "
            "the run's folder, or a checkpoint that was converted with its configuration"
        )
    network = make_model(run.model())
    loaded = load_vocabulary(str(words))
    check_embedding_rows(loaded, network.config.vocab_size)
    known_length = settings.get("data.feature_lengths.inputs") or _DEFAULT_LENGTH
    length = int(known_length) if max_length is None else max_length
    config = AdapterConfig(length, max_gen_toks, seed=seed)  # refuses values out of range
    lengths = {"inputs": length, "targets": 2}
    data = trained_data(run, network.config.layout, str(words), lengths, chat_template)
    score_eos = bool(data.separator) if score_eos is None else score_eos
    config = dataclasses.replace(config, score_eos=score_eos)
    batching = _batching(batch_size, max_batch_size)
    mesh = make_mesh(MeshConfig())
    abstract = network.abstract_params()
    answerer = RequestAnswerer(
        scorer=ContinuationScorer(network.target_logits, batching, mesh),
        decoder_fn=lambda strategy: Decoder(network, strategy, batching, mesh),
        params=load_params(folder, with_shardings(abstract, param_shardings(mesh, abstract))),
        frame=data.frame,
        end_ids=loaded.stop_ids,
        config=config,
    )
    facts = {
        "checkpoint": str(folder),
        "parameters": params_fingerprint(folder),
        "vocabulary": loaded.fingerprint,
        "max_length": length,
        "score_eos": score_eos,
        "model_seed": seed,
    }
    return answerer, facts


def _batching(batch_size: int | str | None, max_batch_size: int | None) -> BatchConfig:
    """The harness's "auto" and "auto:4" mean the default size: memory is not measured."""
    size = batch_size
    if size is None or str(size).partition(":")[0] == "auto":
        size = BatchConfig().batch_size
    if not str(size).isdecimal() or int(size) < 1:
        raise UserError(f"batch_size is {batch_size!r}, must be a whole number or auto")
    if max_batch_size is None:
        return BatchConfig(int(size))
    if type(max_batch_size) is not int or max_batch_size < 1:
        raise UserError(
            f"max_batch_size is {max_batch_size!r}, must be a whole number of at least 1"
        )
    return BatchConfig(min(int(size), max_batch_size))


@functools.cache
def model_class() -> type:
    """The subclass of the harness's `LM`. Raises UserError if the harness is not installed."""
    try:
        from lm_eval.api.model import LM
        from tqdm import tqdm
    except ImportError as error:
        raise UserError(
            f"lm_eval cannot be imported ({error}); run `pip install 'instruct[lm-eval]'`"
        ) from error

    class InstructLM(LM):
        """A checkpoint that answers requests; for the arguments see `load_answerer`."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__()
            known = inspect.signature(load_answerer).parameters
            for name in arguments:
                if name not in known:
                    raise unknown_name("model argument", name, known)
            if "model_dir" not in arguments:
                raise UserError("no checkpoint: give --model_args model_dir=FOLDER")
            self._answerer, self._facts = load_answerer(**arguments)

        def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
            return self._answer("loglikelihood", requests)

        def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
            return self._answer("loglikelihood_rolling", requests)

        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return self._answer("generate_until", requests)

        def get_model_info(self) -> dict[str, Any]:
            return dict(self._facts)

        @property
        def tokenizer_name(self) -> str:
            return str(self._facts["vocabulary"])

        def _answer(self, kind: str, requests: list[Any]) -> list[Any]:
            """Calls the method of `RequestAnswerer` that is called `kind`, in batches."""
            method, answers = getattr(self._answerer, kind), []
            arguments = [request.args for request in requests]
            with tqdm(total=len(arguments), desc=kind) as bar:
                for first in range(0, len(arguments), _REQUESTS_TOGETHER):
                    batch = arguments[first : first + _REQUESTS_TOGETHER]
                    is_rolling = kind == "loglikelihood_rolling"
                    inputs = [text for (text,) in batch] if is_rolling else batch
                    number = {"first_number": first} if kind == "generate_until" else {}
                    answers += method(inputs, bar.update, **number)
                    for request, answer in zip(batch, answers[first:]):
                        self.cache_hook.add_partial(kind, request, answer)
            return answers

    return InstructLM


def register() -> None:
    """Registers `instruct` as a model of the harness; may be called repeatedly.

    Raises:
        UserError: the harness is not installed.
    """
    model = model_class()
    from lm_eval.api.registry import register_model

    register_model(NAME)(model)


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The harness's arguments, with defaults for the model's name and the batch size."""
    argv = list(arguments)
    if not argv or argv[0] in ("ls", "validate"):
        return argv
    if argv[0] == "run":
        del argv[0]
    for flags, value in ((("--model", "-M"), NAME), (("--batch_size", "-b"), "auto")):
        if not any(argument.partition("=")[0] in flags for argument in argv):
            argv += [flags[0], value]
    return ["run", *argv]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the harness's command line. Returns the exit status: 0, or 2 for bad use."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        sys.argv = ["lm_eval", *with_defaults(sys.argv[1:] if arguments is None else arguments)]
        cli_evaluate()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
