"""Small tokenizers with the steps of published ones, as Hugging Face folders.

llama3     byte-level BPE, Llama 3's pattern; starts with <|begin_of_text|>; no padding token
qwen       byte-level BPE, NFC and Qwen 2.5's pattern; starts with nothing
gemma      BPE over characters with byte fallback, blanks as "▁"; starts with <bos>
llama2     the same with a blank before the text; starts with <s>
unigram    Unigram over words, starts with nothing
"""

import json
import pathlib
from collections.abc import Iterable

import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

KINDS = ("llama3", "qwen", "gemma", "llama2", "unigram")
LINES = (
    "What is 12 + 345? It isn't 350, it's 357.",
    "  two  spaces\tand a tab\n\n\nnew lines \r\n",
    "naïve café, señor; Übergröße – “quoted” … ﬁne",
    "日本語の文章です。これは試験です。",
    "if (a < b) { return \\n; } // 0x1F",
    "😀 emoji 👩\u200d👩\u200d👧 e\u0301 combined",
    "Ответ: 42. हिन्दी में एक वाक्य",
)
# Published patterns: Llama 3 splits numbers into three digits at most, Qwen into single ones.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIALS = {
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>"),
    "qwen": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "gemma": ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    "llama2": ("<unk>", "<s>", "</s>"),
    "unigram": ("<unk>", "<s>", "</s>"),
}
_SPECIALS["llama3"] += ("<|end_header_id|>",)
_SETTINGS = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "qwen": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    "llama2": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "unigram": {"eos_token": "</s>", "unk_token": "<unk>"},
}
_SETTINGS["qwen"]["add_bos_token"] = False
_SETTINGS["gemma"] |= {"unk_token": "<unk>", "add_bos_token": True}
# eos_token_id of generation_config.json, by name.
_ENDS = {
    "llama3": ("<|end_of_text|>", "<|eot_id|>"),
    "qwen": ("<|im_end|>", "<|endoftext|>"),
    "gemma": ("<eos>", "<end_of_turn>"),
}
_SPACE = "▁"


def write_folder(
    kind: str, folder: pathlib.Path, lines: Iterable[str] = LINES, size: int = 700
) -> pathlib.Path:
    """Trains a tokenizer on lines and writes its files."""
    specials = _SPECIALS[kind]
    if kind in ("llama3", "qwen"):
        tokenizer = _byte_level(kind, lines, size)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size,
            special_tokens=list(specials),
            unk_token="<unk>",
            show_progress=False,
            initial_alphabet=sorted(set("".join(LINES)) - set("{<語")),
        )
        tokenizer.train_from_iterator(lines, trainer)
    else:
        tokenizer = _byte_fallback(kind, lines, size)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in specials])
    settings = _SETTINGS[kind] | {"tokenizer_class": "PreTrainedTokenizerFast"}
    bos = settings.get("bos_token")
    if bos:
        template = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
        byte_level = [processors.ByteLevel(trim_offsets=False)] if kind == "llama3" else []
        tokenizer.post_processor = processors.Sequence([*byte_level, template])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if kind in _ENDS:
        ends = [tokenizer.token_to_id(text) for text in _ENDS[kind]]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return folder


def _byte_level(kind: str, lines: Iterable[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    digits = "{1,3}" if kind == "llama3" else ""
    split = pre_tokenizers.Split(Regex(_PATTERN % digits), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _byte_fallback(kind: str, lines: Iterable[str], size: int) -> Tokenizer:
    """Gemma's and Llama 2's steps; rare characters have no piece and become bytes."""
    tokenizer = Tokenizer(models.BPE())
    replace = normalizers.Replace(" ", _SPACE)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "gemma":
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace])
        steps.append(decoders.Strip(" ", 1, 0))
    words = pre_tokenizers.Split(Regex(f"{_SPACE}*[^{_SPACE}]+"), "isolated")
    pre_tokenizer, tokenizer.pre_tokenizer = tokenizer.pre_tokenizer, words  # short merges
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=60, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    content = json.loads(tokenizer.to_str())
    first = [*_SPECIALS[kind], *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*first, *sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)]
    content["model"] |= {
        "vocab": {piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
        "byte_fallback": True,
        "fuse_unk": True,
        "unk_token": "<unk>",
    }
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence(steps)
    if pre_tokenizer is None:
        return Tokenizer.from_str(
            json.dumps(json.loads(tokenizer.to_str()) | {"pre_tokenizer": None})
        )
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def write_t5_model(folder: pathlib.Path) -> str:
    """A SentencePiece model like T5's: NFKC, blanks collapsed, no piece for "{" or Chinese."""
    words = [f"Question {i}: how many is {i * 7}, and 1/2? [abc] + = Answer" for i in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(folder / "t5"),
        vocab_size=90,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return str(folder / "t5.model")


def write_bos_model(folder: pathlib.Path, **ids: int) -> str:
    """A SentencePiece model with BOS and byte fallback, as Llama 2's; `ids` of special pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"sentence {i} has {i * 7} words." for i in range(200)]),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **ids,
    )
    return str(folder / "tokenizer.model")
