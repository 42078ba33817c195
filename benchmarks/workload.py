"""Real prompts with real answer lengths, for a benchmark of decoding.

BIG-Bench Hard, three exemplars and the answer alone, and GSM8K with its worked solutions, read from
the publishers' files: DATA/bbh/{bbh,cot-prompts} and DATA/gsm8k/{train,test}.jsonl. A vocabulary
of 8,000 pieces is learned from GSM8K's training questions, so that lengths are those of text. A
model with random weights never ends an answer, so each is ended at the length of its reference: the
logits of both programs are masked so that EOS is impossible before and certain there.
"""

import io
import json
import pathlib
import re
from typing import NamedTuple

import numpy as np
import sentencepiece

EOS = 1
PIECES = 8_000
_EXEMPLAR = re.compile(
    r"Q: (.*?)\nA: .*?[Ss]o the answer is (.*?)\.\s*(?=\n\s*\nQ: |\Z)", re.DOTALL
)
_CALCULATION = re.compile(r"<<.*?>>")


class Workload(NamedTuple):
    """Prompts in the order of the files, and how many tokens each answer has, EOS included."""

    prompts: list[list[int]]
    answer_lengths: np.ndarray  # [examples] int32

    def describe(self) -> str:
        """Lengths in one line."""
        prompts = np.array([len(prompt) for prompt in self.prompts])
        shown = ", ".join(
            f"{name} {np.min(a)} to {np.max(a)} tokens (mean {np.mean(a):.0f})"
            for name, a in (("prompts", prompts), ("answers", self.answer_lengths))
        )
        return f"{len(prompts)} examples, {shown}"


def read_workload(data: pathlib.Path, num_examples: int, longest_answer: int) -> Workload:
    """Half BBH, the same number of each sub-task that is there, half GSM8K.

    Args:
        data: folder of the publishers' files.
        num_examples: in all.
        longest_answer: tokens; longer answers are cut there.
    """
    tasks = sorted((data / "bbh" / "bbh").glob("*.json"))
    each = -(-num_examples // (2 * len(tasks)))
    texts = [pair for task in tasks for pair in _bbh(task, each)][: num_examples // 2]
    texts += _gsm8k(data / "gsm8k" / "test.jsonl", num_examples - len(texts))
    words = learned_vocabulary(data / "gsm8k" / "train.jsonl")
    prompts = [[*words.encode(prompt), EOS] for prompt, _ in texts]
    lengths = [min(len(words.encode(answer)) + 1, longest_answer) for _, answer in texts]
    return Workload(prompts, np.array(lengths, np.int32))


def _bbh(task: pathlib.Path, count: int) -> list[tuple[str, str]]:
    prompt = (task.parents[1] / "cot-prompts" / f"{task.stem}.txt").read_text()
    instruction = prompt.split("-----", 1)[1].split("\n\nQ: ", 1)[0].strip()
    shown = [f"Q: {question}\nA: {answer}" for question, answer in _EXEMPLAR.findall(prompt)]
    examples = json.loads(task.read_text())["examples"][:count]
    return [
        ("\n\n".join([instruction, *shown, f"Q: {example['input']}\nA:"]), example["target"])
        for example in examples
    ]


def _gsm8k(path: pathlib.Path, count: int) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for _, line in zip(range(count), lines)]
    return [
        (f"Q: {record['question']}\nA:", _CALCULATION.sub("", record["answer"]))
        for record in records
    ]


def learned_vocabulary(path: pathlib.Path) -> sentencepiece.SentencePieceProcessor:
    """PIECES pieces of the questions and answers of a file of GSM8K."""
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    texts = [text for record in records for text in (record["question"], record["answer"])]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=PIECES,
        pad_id=0,
        eos_id=EOS,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
