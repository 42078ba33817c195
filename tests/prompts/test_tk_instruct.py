"""The encoding is a fixed format that other models know: the tests hold it to the letter."""

from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import render
from instruct.prompts.template import TemplateSet
from instruct.prompts.tk_instruct import DEFAULT_ENCODING, ENCODINGS

FIELDS = {"definition": "Say which number is larger", "input": "3 or 4?"}
WORDING = TemplateSet("ni", ("input",), ("definition",), truncate_field="input")


def positive(number: int) -> Record:
    negative = {"input": f"bad {number}", "output": "no", "explanation": ""}
    return Record(
        f"p{number}",
        {"definition": FIELDS["definition"], "input": f"{number} or 0"},
        str(number),
        rationale=f"{number} is above 0",
        metadata={"negative": negative} if number < 3 else {},
    )


SHOTS = [positive(n) for n in (1, 2, 3)]


def test_default_is_the_definition_and_two_positive_examples():
    text, used = DEFAULT_ENCODING.prompt(FIELDS, SHOTS)
    assert text == (
        "Definition: Say which number is larger.\n\n"
        "Positive Example 1 -\nInput: 1 or 0.\nOutput: 1.\n\n"
        "Positive Example 2 -\nInput: 2 or 0.\nOutput: 2.\n\n"
        "Now complete the following example -\nInput: 3 or 4?\nOutput:"
    )
    assert used == SHOTS[:2]


def test_the_five_encodings_of_mixed_training():
    texts = {e.id.removeprefix("tk_"): e.prompt(FIELDS, SHOTS)[0] for e in ENCODINGS}
    assert len(texts) == 5
    assert "Example 1" not in texts["definition"]
    assert "Definition" not in texts["2_positive"]
    mixed = texts["definition_2_positive_2_negative"]
    assert mixed.count("Negative Example") == 2 and "Input: bad 2.\nOutput: no.\n\n" in mixed
    assert "Output: 2.\nExplanation: 2 is above 0.\n\n" in texts["definition_2_positive_explained"]


def show(mode: str, key: int = 0, length: int = 900, source: str = "3 or 4?"):
    record = Record("q", {**FIELDS, "input": source}, "4")
    return render(
        record,
        WORDING,
        mode,
        key,
        SHOTS[:2],
        frame=Frame(load_vocabulary("bytes")),
        max_inputs_tokens=length,
        max_targets_tokens=20,
    )


def test_modes_render_it():
    shown = show("tk_instruct")
    assert shown.targets == "4" and shown.exemplar_ids == ("p1", "p2")
    assert shown.template_id == DEFAULT_ENCODING.id
    assert len({show("tk_instruct_mixed", key).template_id for key in range(100)}) == 5


def test_too_long_loses_the_last_example_first_and_never_the_cue():
    whole = len(show("tk_instruct").input_ids)
    shorter = show("tk_instruct", length=whole - 1)
    assert shorter.exemplar_ids == ("p1",) and not shorter.truncated
    cut = show("tk_instruct", length=160, source="so many words" * 40)
    assert cut.truncated and cut.exemplar_ids == () and cut.inputs.endswith("\nOutput:")
    assert "Definition: Say which number" in cut.inputs
