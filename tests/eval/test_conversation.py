"""A conversation at a terminal: turns, history that is too long, Ctrl-C and Ctrl-D."""

from instruct.data.vocab import ByteVocabulary
from instruct.eval.conversation import converse
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.loaded_model import PromptEncoder
from instruct.prompts.chat_template import ChatTemplate
from instruct.prompts.frame import Frame
from tests.serve.echo import CHAT, EchoDecoder

GREEDY = DecodeConfig(max_decode_steps=40)


REFUSING = ChatTemplate(
    "{% if 'tool' in messages[-1].content %}{{ raise_exception('no tools') }}{% endif %}"
    + CHAT.source
)


def talk(
    lines, chat: bool | ChatTemplate = False, config=GREEDY, decoder=None, inputs_length=30
) -> list[str]:
    """What is written while these lines are typed; an exception is a key such as Ctrl-C."""
    lines, written = iter([*lines, EOFError]), []

    def read(prompt: str) -> str:
        written.append(prompt)
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    frame = Frame(ByteVocabulary(), chat=CHAT if chat is True else (chat or None))
    encoder = PromptEncoder(frame, inputs_length)
    converse(decoder or EchoDecoder(config), encoder, read, written.append)
    return written


def answers(written: list[str]) -> list[str]:
    """What was written between two prompts."""
    return "".join(written[1:]).split("> ")[1:-1]


def test_each_line_is_answered_in_pieces():
    written = talk(["hello world", "", "日本"])
    assert "each line is a prompt of its own" in written[0]
    assert answers(written) == ["hello world\n", "", "日本\n"]
    assert len([piece for piece in written if piece and piece in "hello world"]) > 2
    assert written[-2:] == ["> ", "\n"]


def test_turns_are_kept_with_a_chat_template():
    written = talk(["a", "b"], chat=True, inputs_length=99)
    first = "<user>a</><assistant>"
    assert answers(written)[0] == f"{first}\n"
    assert answers(written)[1].startswith(f"<user>a</><assistant>{first}</><user>b"[:40])


def test_a_turn_that_the_template_refuses_is_forgotten():
    told = answers(talk(["a", "tool", "b"], chat=REFUSING, inputs_length=99))
    assert told[1].startswith("[the chat template of this run refuses") and "no tools" in told[1]
    assert told[2] == answers(talk(["a", "b"], chat=True, inputs_length=99))[1]


def test_a_conversation_that_is_too_long_loses_its_oldest_turn():
    written = talk(["a", "b", "c" * 40, "d"], chat=True, inputs_length=40)
    told = answers(written)
    assert told[1].startswith("[the oldest turn is left out")
    assert told[1].endswith("<user>b</><assistant>\n")
    assert "this prompt has 60 tokens, the model reads 40" in told[2]
    assert told[3].endswith("<user>d</><assistant>\n")


def test_a_prompt_that_is_too_long_is_not_cut():
    (told,) = answers(talk(["x" * 30]))
    assert "has 31 tokens, the model reads 30" in told and "--gin.INPUTS_LENGTH=31" in told


class Interrupted(EchoDecoder):
    """Ctrl-C comes in the second chunk."""

    count = 0

    def advance(self):
        self.count += 1
        if self.count == 4:
            raise KeyboardInterrupt
        return super().advance()


def test_ctrl_c_ends_an_answer_or_clears_a_line():
    told = answers(talk(["hello world", KeyboardInterrupt, "b"], decoder=Interrupted(GREEDY)))
    assert told == ["he [stopped]\n", "\n", "b\n"]


def test_samples_differ_from_line_to_line():
    sample = DecodeConfig("sample", 40, num_samples=2)
    assert answers(talk(["a", "a"], config=sample)) == ["00:a\n", "01:a\n"]


def test_a_cut_answer_is_marked():
    short = DecodeConfig(max_decode_steps=4)
    (told,) = answers(talk(["hello"], config=short))
    assert told == "hell [cut off after 4 tokens; --gin.MAX_DECODE_STEPS allows more]\n"


def test_a_prompt_that_was_interrupted_before_it_had_a_slot_is_forgotten():
    class Interrupted(EchoDecoder):
        def advance(self):
            if self._number == 1 and self.waiting:
                raise KeyboardInterrupt
            return super().advance()

    assert answers(talk(["one", "two"], decoder=Interrupted(GREEDY))) == [" [stopped]\n", "two\n"]
