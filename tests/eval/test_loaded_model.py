"""Checkpoints are found and loaded for answering; what they do not record is asked for."""

import pytest

from instruct.data.vocab import ByteVocabulary
from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.loaded_model import PromptEncoder, find_model, run_folder_of
from instruct.eval.prompt_lines import Prompt
from instruct.prompts.frame import Frame
from instruct.serve.request_body import Refusal, read_completion
from tests.flan_t5 import write_flan_t5


def test_a_hugging_face_folder_needs_no_run(tmp_path):
    write_flan_t5(tmp_path)
    found = find_model(str(tmp_path), "", inputs_length=24)
    assert found.folder == tmp_path and found.encoder.inputs_length == 24
    said: list[str] = []
    loaded = found.load(None, 5, None, False, lambda *lines: said.extend(lines))
    assert loaded.network.config.d_model == 32 and loaded.folder == tmp_path
    assert loaded.encoder.frame.prompt("a")[-1] == loaded.vocabulary.eos_id
    assert loaded.decode.strategy == "greedy" and loaded.decode.max_decode_steps == 5 and not said


def test_least_lengths_of_a_folder_fit_the_longest(tmp_path):
    write_flan_t5(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"min_new_tokens": 200}')
    found = find_model(str(tmp_path), "", inputs_length=24)
    for steps, most in ((None, 128), (199, 199)):
        with pytest.raises(
            UserError, match=rf"200, more tokens than the max_decode_steps = {most}"
        ):
            found.load(None, steps, None, False, print)
    config = found.load(None, 200, None, False, print).decode
    assert (config.min_decode_steps, config.max_decode_steps) == (200, 200)


@pytest.mark.parametrize(
    ("entry", "fix"),
    [("", "give vocabulary="), ("infer.infer", "--gin_bindings='infer.infer.vocabulary =")],
)
def test_what_is_not_recorded_is_asked_for(entry, fix, tmp_path):
    write_flan_t5(tmp_path)
    (tmp_path / "spiece.model").unlink()
    with pytest.raises(UserError, match=fix):
        find_model(str(tmp_path), entry)


def test_the_run_of_a_checkpoint(tmp_path):
    step = tmp_path / "checkpoints" / "7"
    step.mkdir(parents=True)
    assert run_folder_of(str(step)) == step
    (tmp_path / "run.json").write_text("{}")
    assert run_folder_of(str(step)) == run_folder_of(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("start_ids", [(0,), ()])
def test_a_decoders_advised_length_reads_the_whole_prompt(start_ids):
    """A decoder's prompt may have a token more than INPUTS_LENGTH."""
    frame = Frame(ByteVocabulary(), start_ids, separator="", one_sequence=True)
    text = "x" * (30 - len(start_ids))
    said = PromptEncoder(frame, 28 + 1).describe_truncated([Prompt("--prompt", text, "")])
    assert len(frame.prompt(text)) == 30 and "29 tokens after the first, the model reads 28" in said
    assert "--gin.INPUTS_LENGTH=29 " in said
    assert not PromptEncoder(frame, 29 + 1).describe_truncated([Prompt("--prompt", text, "")])
    with pytest.raises(Refusal, match=r"30 tokens, .* at most 29 \(INPUTS_LENGTH and the first\)"):
        read_completion({"prompt": text}, "m", DecodeConfig(), PromptEncoder(frame, 29), 1)
