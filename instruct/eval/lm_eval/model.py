"""Checkpoints as the model `instruct` of EleutherAI's lm-evaluation-harness (extra: lm_eval).

    python -m instruct.eval.lm_eval.model --model_args model_dir=runs/a --tasks mmlu

takes the flags of `lm_eval` and is the same command with `--model instruct` and `--batch_size auto`
put in. The harness looks for models in its own list alone, so from Python, or from another
program around it, call `register()` first:

    from instruct.eval.lm_eval.model import register
    register()
    lm_eval.simple_evaluate(model="instruct", model_args={"model_dir": "runs/a"}, tasks=["mmlu"])
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
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
from instruct.eval.infer import run_folder_of
from instruct.eval.lm_eval.adapter import AdapterConfig, ContinuationScorer, RequestAnswerer
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.models.encoder_decoder import EncoderDecoder, reorder_cache

NAME = "instruct"
# Requests that are answered, and put in the harness's cache, together.
_REQUESTS_TOGETHER = 1024
_DEFAULT_LENGTH = 512


def load_answerer(
    model_dir: str,
    step: int | None = None,
    vocabulary: str | None = None,
    max_length: int | None = None,
    max_gen_toks: int = 256,
    score_eos: bool = True,
    seed: int = 0,
    batch_size: int | str | None = None,
    max_batch_size: int | None = None,
    device: str | None = None,
) -> tuple[RequestAnswerer, dict[str, Any]]:
    """Loads a checkpoint; the arguments are what `--model_args` may hold.

    Args:
        model_dir: a training run's folder, or a checkpoint's: this program's, T5X's or Hugging
            Face's.
        step: which checkpoint; None for the newest.
        vocabulary: as in `instruct.data.vocab`; None: as the checkpoint says.
        max_length: None: as long as inputs were in training, else 512. With the others below see
            `AdapterConfig`.
        max_gen_toks, score_eos, seed: see `AdapterConfig`.
        batch_size: rows of a batch; None and "auto": 32. Speed only.
        max_batch_size: most of them.
        device: has no effect. The harness says "cuda:0" where its user says nothing; JAX takes
            the accelerators that are there, or what the variable JAX_PLATFORMS names.

    Returns:
        What answers requests, and what was loaded, to be written beside the results.

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
    network = EncoderDecoder(run.model())
    loaded = load_vocabulary(str(words))
    check_embedding_rows(loaded, network.config.vocab_size)
    known_length = settings.get("data.feature_lengths.inputs") or _DEFAULT_LENGTH
    length = int(known_length) if max_length is None else max_length
    config = AdapterConfig(length, max_gen_toks, score_eos, seed)
    batching = _batching(batch_size, max_batch_size)
    mesh = make_mesh(MeshConfig())
    abstract = network.abstract_params()
    answerer = RequestAnswerer(
        scorer=ContinuationScorer(network.apply, batching, mesh),
        decoder_fn=lambda strategy: Decoder(network, reorder_cache, strategy, batching, mesh),
        params=load_params(folder, with_shardings(abstract, param_shardings(mesh, abstract))),
        vocabulary=loaded,
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
    """The harness's "auto" and "auto:4" are our own choice: memory is not measured."""
    given = batch_size
    if given is None or str(given).partition(":")[0] == "auto":
        given = BatchConfig().batch_size
    if not str(given).isdecimal() or int(given) < 1:
        raise UserError(f"batch_size is {batch_size!r}, must be a whole number or auto")
    return BatchConfig(min(int(given), max_batch_size or int(given)))


@functools.cache
def model_class() -> type:
    """The subclass of the harness's `LM`. Raises UserError where the harness is not installed."""
    try:
        from lm_eval.api.model import LM
        from tqdm import tqdm
    except ImportError as error:
        raise UserError(
            f"lm_eval cannot be imported ({error}); run `pip install 'instruct[lm-eval]'`"
        ) from error

    class InstructLM(LM):
        """Requests in, answers of a checkpoint out; for the arguments see `load_answerer`."""

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
            def answer(part, first, progress):
                return self._answerer.loglikelihood(part, progress)

            return self._answer("loglikelihood", requests, answer)

        def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
            def answer(part, first, progress):
                return self._answerer.loglikelihood_rolling([text for (text,) in part], progress)

            return self._answer("loglikelihood_rolling", requests, answer)

        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            def answer(part, first, progress):
                return self._answerer.generate_until(part, progress, first)

            return self._answer("generate_until", requests, answer)

        def get_model_info(self) -> dict[str, Any]:
            return dict(self._facts)

        @property
        def tokenizer_name(self) -> str:
            return str(self._facts["vocabulary"])

        def _answer(self, kind: str, requests: list[Any], answer: Callable[..., list]) -> list:
            answers = []
            arguments = [request.args for request in requests]
            with tqdm(total=len(arguments), desc=kind) as bar:
                for first in range(0, len(arguments), _REQUESTS_TOGETHER):
                    part = arguments[first : first + _REQUESTS_TOGETHER]
                    found = answer(part, first, bar.update)
                    for asked, one in zip(part, found):
                        self.cache_hook.add_partial(kind, asked, one)
                    answers += found
            return answers

    return InstructLM


def register() -> None:
    """Makes `instruct` a model of the harness; may be called again.

    Raises:
        UserError: the harness is not installed.
    """
    found = model_class()
    from lm_eval.api.registry import register_model

    register_model(NAME)(found)


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The harness's arguments with the model's name and the batch size put in if not given."""
    found = list(arguments)
    if not found or found[0] in ("ls", "validate"):
        return found
    if found[0] == "run":
        del found[0]
    for flags, value in ((("--model", "-M"), NAME), (("--batch_size", "-b"), "auto")):
        if not any(part.partition("=")[0] in flags for part in found):
            found += [flags[0], value]
    return ["run", *found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the harness's command line; the exit status: 0, or 2 for bad use."""
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
