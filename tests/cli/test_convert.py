"""`run.py convert`: tables, refusals and exit statuses. What is converted: tests/interop."""

import dataclasses
import errno
import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from instruct.checkpoints import convert as conversion
from instruct.checkpoints import native
from instruct.checkpoints.arrays import held
from instruct.checkpoints.detect import KINDS, detect, open_checkpoint
from instruct.cli import arguments
from instruct.cli.arguments import main, parse
from instruct.data.vocab import GYM_MODEL
from instruct.errors import UserError
from instruct.models.config import ModelConfig
from tests.checkpoints.conftest import random_arrays
from tests.checkpoints.hub_stub import HubStub
from tests.checkpoints.test_hub import use_hub

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ModelConfig(
    vocab_size=384,
    d_model=8,
    num_heads=2,
    head_dim=3,
    d_ff=10,
    num_encoder_layers=2,
    num_decoder_layers=2,
    activations="gated-gelu",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One model in all three formats, in folders called as the formats are."""
    folder = tmp_path_factory.mktemp("made")
    native.write_checkpoint(folder / "instruct", random_arrays(MODEL), MODEL, info={})
    source = f"--from={folder}/instruct"
    bytes_ = "--tokenizer=bytes#extra_ids=125"
    assert main(["convert", source, f"--to={folder}/huggingface", bytes_]) == 0
    assert main(["convert", source, f"--to={folder}/checkpoint_7"]) == 0
    return folder


def values(path) -> dict[str, np.ndarray]:
    return {name: array.read() for name, array in open_checkpoint(path).arrays.items()}


def test_help_names_the_formats_there_are():
    assert set(arguments.CHECKPOINT_FORMATS) == set(KINDS)
    assert all(f"\n  {name}  " in arguments._CONVERT_HELP for name in KINDS)


def documented_commands() -> list[str]:
    texts = [(ROOT / "docs" / name).read_text() for name in ("checkpoints.md", "t5x.md")]
    blocks = [block for text in texts for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    matches = (re.search(r"python run\.py ([^|]*)", line) for line in lines)  # pipes around it
    return [match[1].strip() for match in matches if match]


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_are_understood(command):
    flags = parse(shlex.split(command))
    for path in flags.gin_file:
        assert (ROOT / path).is_file()
    if flags.mode == "convert":
        assert flags.source and (flags.target or flags.describe or flags.push)


@pytest.mark.parametrize("source", ["instruct", "huggingface", "checkpoint_7"])
@pytest.mark.parametrize("to", ["instruct", "huggingface", "t5x"])
def test_every_format_into_every_other(made, tmp_path, source, to, capsys):
    target = tmp_path / "checkpoint_9"
    flags = [f"--from={made}/{source}", f"--to={target}", f"--format={to}"]
    assert main(["convert", *flags]) == 0
    out = capsys.readouterr().out
    assert detect(target).kind == to and "used" in out
    assert "encoder/layers_*/attention/query/kernel" in out and out.count("\n") < 60
    expected = values(made / "instruct")
    found = values(target)
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in expected.items())


def test_formats_are_guessed_from_what_is_given(made, tmp_path, capsys):
    for source, target, kind in (
        ("huggingface", "a", "instruct"),
        ("instruct", "b", "huggingface"),
        ("checkpoint_7", "c", "huggingface"),
        ("huggingface", "checkpoint_3", "t5x"),
    ):
        assert main(["convert", f"--from={made}/{source}", f"--to={tmp_path}/{target}"]) == 0
        assert detect(tmp_path / target).kind == kind
    capsys.readouterr()
    one = [f"--from={made}", "--step=7", f"--to={tmp_path}/d"]  # a folder with checkpoint_7
    assert main(["convert", *one]) == 0
    assert "checkpoint_7" in capsys.readouterr().out
    flags = [f"--from={made}/huggingface", f"--to={tmp_path}/mine", "--format=t5x"]
    assert main(["convert", *flags]) == 2
    assert f"--to={tmp_path}/mine/checkpoint_0" in capsys.readouterr().err


def test_slots_make_a_run_and_go_back(tmp_path):
    arrays = random_arrays(MODEL)
    slots = {f"{path}/v": array for path, array in arrays.items()}
    native.write_checkpoint(tmp_path / "run", arrays, MODEL, info={}, slots=slots, step=7)
    steps = ((tmp_path / "run", tmp_path / "checkpoint_7"), (tmp_path / "checkpoint_7",))
    assert main(["convert", f"--from={steps[0][0]}", f"--to={steps[0][1]}", "--slots"]) == 0
    assert main(["convert", f"--from={steps[1][0]}", f"--to={tmp_path}/back", "--slots"]) == 0
    opened = open_checkpoint(tmp_path / "back", slots=True)
    assert opened.step == 7 and opened.kind == "instruct"
    assert {n: a.read().tobytes() for n, a in opened.slots.items()} == {
        n: a.read().tobytes() for n, a in slots.items()
    }


def test_a_hugging_face_folder_has_a_model_card(made, tmp_path, capsys):
    """What it says of a trained run: tests/report/pages/test_model_card.py."""
    target = tmp_path / "mine"
    flags = ["convert", f"--from={made}/instruct", f"--to={target}", "--format=huggingface"]
    assert main([*flags, "--dtype=bfloat16"]) == 0
    text = (target / "README.md").read_text()
    assert text.startswith("---\nlicense: unknown\n") and "# mine" in text
    assert f"{MODEL.num_params():,}" in text and "bfloat16" in text
    assert "converted" not in text and "training data are not recorded" in text
    assert not (made / "checkpoint_7" / "README.md").exists()
    (target / "README.md").write_text("my own words")
    assert main(flags) == 2  # the folder is taken
    assert (target / "README.md").read_text() == "my own words"


def test_push_writes_the_folder_then_pushes_it(made, tmp_path, monkeypatch, capsys):
    target = tmp_path / "mine"
    flags = ["convert", f"--from={made}/instruct", f"--to={target}", "--push=me/mine"]
    with HubStub() as hub:
        use_hub(monkeypatch, hub, tmp_path)
        assert main([*flags, "--dtype=bfloat16"]) == 0
        files = hub.repos["me/mine"]["files"]
        assert files == {path.name: path.read_bytes() for path in target.iterdir()}
        assert {"README.md", "config.json", "model.safetensors"} <= files.keys()
        assert hub.repos["me/mine"]["private"]
        out = capsys.readouterr().out
        assert f"wrote a Hugging Face folder: {target} (bfloat16)" in out
        assert f"pushed {len(files)} files, " in out and f"to {hub.url}/me/mine (private)" in out
        # A folder that is whole already, as after a failure of the network.
        assert main(["convert", f"--from={target}", "--push=lab/again", "--public"]) == 0
        assert hub.repos["lab/again"]["files"] == files and not hub.repos["lab/again"]["private"]


def test_push_is_checked_before_the_work(made, tmp_path, monkeypatch, capsys):
    def refused(*flags):
        assert main(["convert", *flags]) == 2
        assert not (tmp_path / "new").exists()
        return " ".join(capsys.readouterr().err.split())

    to, push = f"--to={tmp_path}/new", "--push=me/mine"
    with HubStub() as hub:
        use_hub(monkeypatch, hub, tmp_path)
        source = f"--from={made}/instruct"
        assert "not to others" in refused(source, to, "--push=others/mine")
        assert "write --push=USER/NAME" in refused(source, to, "--push=mine")
        assert "is to hold a T5X checkpoint" in refused(source, f"{to}/checkpoint_1", push)
        assert "give --to=PATH as well" in refused(source, push)
        assert "--dtype is for a conversion" in refused(source, push, "--dtype=bfloat16")
        assert "--public goes with --push" in refused(source, to, "--public")
        assert "leave one out" in refused(source, "--describe", push)
        broken = tmp_path / "broken"
        shutil.copytree(made / "huggingface", broken)
        content = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(content[:-8])
        assert "model.safetensors" in refused(f"--from={broken}", push)
        monkeypatch.delenv("HF_TOKEN")
        assert "there is no token" in refused(source, to, push)
        assert hub.repos == {}


def test_the_table_as_json(made, tmp_path, capsys):
    flags = [f"--from={made}/huggingface", f"--to={tmp_path}/a", "--json"]
    assert main(["convert", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"used": len(found["keys"])} and len(found["keys"]) > 40
    assert found["to"] == {
        **{"kind": "instruct", "place": f"{tmp_path}/a", "dtype": "float32", "written": True},
    }
    assert found["from"]["kind"] == "huggingface"
    keys = {row["ours"]: row for row in found["keys"]}
    row = keys["encoder/layers_1/mlp/wi_0/kernel"]
    assert row["theirs"] == "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"
    assert row["status"] == "used" and row["shape"] == [8, 10]


def test_all_keys_are_printed_singly(made, tmp_path, capsys):
    flags = [f"--from={made}/huggingface", f"--to={tmp_path}/a", "--all_keys"]
    assert main(["convert", *flags]) == 0
    out = capsys.readouterr().out
    assert "layers_*" not in out and "encoder/layers_1/mlp/wi_0/kernel <- " in out


@pytest.fixture
def odd(made, tmp_path):
    """A Hugging Face folder with one weight lost, one of another shape and one too many."""
    folder = tmp_path / "odd"
    main(["convert", f"--from={made}/instruct", f"--to={folder}"])
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    weights["decoder.final_layer_norm.weight"] = np.ones(9, np.float32)
    weights["adapter.weight"] = np.ones((2, 3), np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_halves_are_refused_with_the_whole_table(odd, tmp_path, capsys):
    capsys.readouterr()
    target = tmp_path / "never"
    assert main(["convert", f"--from={odd}", f"--to={target}"]) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert any(line.startswith("missing") and "encoder_norm/scale" in line for line in lines)
    assert any(
        line.startswith("shape differs") and "model [8], checkpoint [9]" in line for line in lines
    )
    assert any(line.startswith("left over") and "adapter.weight [2, 3]" in line for line in lines)
    assert "1 missing, 1 left over, 1 shape differs" in err and "wrote" not in out
    assert not target.exists()
    assert main(["convert", f"--from={odd}", f"--to={target}", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["to"]["written"] is False
    assert {found["counts"][name] for name in ("missing", "left over", "shape differs")} == {1}


def test_left_over_keys_are_dropped_only_on_request(made, odd, tmp_path, capsys):
    weights = load_file(odd / "model.safetensors")
    good = load_file(made / "huggingface" / "model.safetensors")
    save_file(
        good | {"adapter.weight": weights["adapter.weight"]}, odd / "model.safetensors", {"a": "b"}
    )
    flags = ["convert", f"--from={odd}", f"--to={tmp_path}/a"]
    assert main(flags) == 2
    assert "Allow left-over" in capsys.readouterr().err
    assert main([*flags, "--allow_left_over"]) == 0
    out = capsys.readouterr().out
    assert "left over" in out and "adapter.weight" in out and "wrote" in out


def test_padding_rows_are_explained_cut_and_added(tmp_path, capsys):
    model = dataclasses.replace(MODEL, vocab_size=6144)
    native.write_checkpoint(tmp_path / "ours", random_arrays(model), model, info={})
    source = f"--from={tmp_path}/ours"
    flags = [source, f"--to={tmp_path}/hf", f"--tokenizer={GYM_MODEL}"]
    assert main(["convert", *flags]) == 0
    out = capsys.readouterr().out
    size = open_checkpoint(tmp_path / "hf").notes[0]
    assert "6,144 rows" in out and "padding, which no text uses" in out and "6,144" in size
    flags = [source, f"--to={tmp_path}/cut", "--vocab_rows=6100", "--format=instruct"]
    assert main(["convert", *flags]) == 0
    assert "cut, 6,144 -> 6,100" in capsys.readouterr().out
    assert values(tmp_path / "cut")["token_embedder/embedding"].shape == (6100, 8)
    assert main(["convert", f"--from={tmp_path}/hf", f"--to={tmp_path}/no", "--vocab_rows=9"]) == 2
    assert "9 rows" in capsys.readouterr().err
    assert main(["convert", source, f"--to={tmp_path}/bare"]) == 0
    assert "--tokenizer=PATH" in capsys.readouterr().out


def test_a_tokenizer_that_t5x_does_not_keep_is_said(made, tmp_path, capsys):
    flags = [f"--from={made}/instruct", f"--to={tmp_path}/checkpoint_0"]
    assert main(["convert", *flags, "--tokenizer=bytes#extra_ids=125"]) == 0
    note = "note: T5X keeps no vocabulary with a checkpoint: --tokenizer was compared"
    assert note in capsys.readouterr().out
    shutil.rmtree(tmp_path / "checkpoint_0")
    assert main(["convert", *flags]) == 0
    assert "--tokenizer" not in capsys.readouterr().out


def test_a_model_may_be_given(made, tmp_path, capsys):
    tiny = [f"--gin_bindings=config.ModelConfig.{name} = {value!r}" for name, value in (
        *(("vocab_size", 384), ("d_model", 8), ("num_heads", 2), ("head_dim", 3), ("d_ff", 10)),
        *(("num_encoder_layers", 2), ("num_decoder_layers", 2)),
    )]  # fmt: skip
    flags = [f"--from={made}/checkpoint_7", f"--to={tmp_path}/a", "--format=instruct"]
    assert main(["convert", *flags, "--model=t5_1_1_small", *tiny]) == 0
    assert open_checkpoint(tmp_path / "a").model.scan_layers
    capsys.readouterr()
    flags[1] = f"--to={tmp_path}/b"
    assert main(["convert", *flags, "--model=t5_1_1_small"]) == 2
    assert "d_ff is 10 there, 1024" in capsys.readouterr().err
    assert main(["convert", *flags, "--model=t5_1_1_smal"]) == 2
    assert "Did you mean 't5_1_1_small'" in capsys.readouterr().err


def test_names_may_be_mapped(made, tmp_path, capsys):
    swap = "--map=encoder/encoder_norm/scale=decoder/decoder_norm/scale"
    flags = [f"--from={made}/checkpoint_7", f"--to={tmp_path}/a", "--format=instruct", swap]
    assert main(["convert", *flags, "--allow_left_over"]) == 0
    found = values(tmp_path / "a")
    np.testing.assert_array_equal(
        found["encoder/encoder_norm/scale"], values(made / "instruct")["decoder/decoder_norm/scale"]
    )
    capsys.readouterr()
    assert main(["convert", *flags[:3], "--map=half"]) == 2
    assert "MODEL=CHECKPOINT" in capsys.readouterr().err


def test_describe(made, capsys):
    assert main(["convert", f"--from={made}/huggingface", "--describe"]) == 0
    out = capsys.readouterr().out
    assert "a Hugging Face folder" in out and "vocab_size=384" in out
    assert main(["convert", f"--from={made}/checkpoint_7", "--describe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "t5x" and found["model"]["d_ff"] == 10 and found["counts"]["used"] > 40


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--from=PATH"]),
        (["--from=@"], ["--to=PATH", "--describe"]),
        (["--from=/no/such", "--to=/x"], ["no checkpoint in /no/such"]),
        (["--from=@", "--to=@"], ["exists already"]),
        (["--from=@", "--to=@/a", "--step=5"], ["is one checkpoint", "leave step 5 out"]),
        (["--from=@", "--to=@/checkpoint_1", "--slots", "--format=t5x"], ["parameters only"]),
        (["--from=@", "--to=@/a", "--dtype=bfloat16", "--format=instruct"], ["float32"]),
        (["--from=@", "--to=@/a", "--tokenizer=/no/file"], ["/no/file"]),
    ],
)
def test_wrong_use_is_status_2(made, flags, words, capsys):
    given = [flag.replace("@", str(made / "instruct")) for flag in flags]
    assert main(["convert", *given]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_a_full_disk_is_status_1(made, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a"))

    monkeypatch.setattr(conversion.huggingface, "write_checkpoint", full)
    assert main(["convert", f"--from={made}/instruct", f"--to={tmp_path}/a"]) == 1
    assert "no space left on the disk" in capsys.readouterr().err


def test_describe_refuses_what_it_would_not_do(made, tmp_path, capsys):
    source = f"--from={made}/huggingface"
    for extra in (f"--to={tmp_path}/a", "--dtype=bfloat16", "--slots", "--gin.D_MODEL=8"):
        assert main(["convert", source, "--describe", extra]) == 2
        assert f"leave {extra.partition('=')[0]}" in capsys.readouterr().err
    assert main(["convert", source, "--describe", "--all_keys"]) == 0
    assert "decoder/layers_1/mlp/wo/kernel" in capsys.readouterr().out


def test_t5x_counts_on_from_the_step_of_the_folders_name(made, tmp_path, capsys):
    """T5X's runs train until TRAIN_STEPS, counted from the recorded step."""
    target = tmp_path / "checkpoint_1184000"
    assert main(["convert", f"--from={made}/huggingface", f"--to={target}"]) == 0
    assert open_checkpoint(target).step == 1_184_000
    assert "T5X resumes" not in capsys.readouterr().out
    # A step that is recorded stays, and a note says so.
    other = tmp_path / "checkpoint_5"
    assert main(["convert", f"--from={target}", f"--to={other}", "--format=t5x"]) == 0
    assert open_checkpoint(other).step == 1_184_000
    assert "from the recorded step, 1,184,000, not from the 5" in capsys.readouterr().out
    huge = tmp_path / "checkpoint_99999999999"
    assert main(["convert", f"--from={made}/huggingface", f"--to={huge}"]) == 2
    assert "step 99,999,999,999 is too large" in capsys.readouterr().err and not huge.exists()


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A checkpoint with adapters; the run behind it started from ~/base/hf."""
    arrays, draw = random_arrays(MODEL), np.random.default_rng(0)
    for path in [path for path in arrays if path.endswith("attention/query/kernel")]:
        owner, (rows, columns) = path.removesuffix("/kernel"), arrays[path].shape
        matrices = {"lora_a": draw.normal(size=(rows, 2)), "lora_b": draw.normal(size=(2, columns))}
        matrices["lora_scale"] = np.asarray(4.0)
        arrays |= {
            f"{owner}/{name}": held(values.astype(np.float32), name)
            for name, values in matrices.items()
        }
    folder = tmp_path_factory.mktemp("lora") / "run"
    info = {"config": {"initial_checkpoint_path": "~/base/hf"}}
    native.write_checkpoint(folder, arrays, MODEL, info=info)
    return folder


def test_an_adapter_names_its_base_as_peft_finds_it(made, lora, tmp_path, monkeypatch):
    """PEFT expands no `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(made / "huggingface", tmp_path / "base" / "hf")

    def base_of(source, name, *flags):
        to = [f"--to={tmp_path}/{name}", "--format=peft"]
        assert main(["convert", f"--from={source}", *to, *flags]) == 0
        return json.loads((tmp_path / name / "adapter_config.json").read_text())[
            "base_model_name_or_path"
        ]

    there = str(tmp_path / "base" / "hf")
    assert base_of(lora, "recorded") == there
    assert base_of(lora, "given", "--base=~/base/hf") == there
    assert base_of(lora, "on_the_hub", "--base=google/flan-t5-base") == "google/flan-t5-base"
    config = tmp_path / "given" / "adapter_config.json"
    settings = json.loads(config.read_text())
    for change, words in (({"r": 7}, "rank 2, but .* r = 7"), ({"use_rslora": "no"}, "use_rslora")):
        config.write_text(json.dumps(settings | change))
        with pytest.raises(UserError, match=words):
            open_checkpoint(tmp_path / "given")


def test_flags_that_adapters_alone_have_no_use_for_are_refused(made, lora, tmp_path, capsys):
    to = [f"--from={lora}", f"--to={tmp_path}/a", "--format=peft", "--base=google/t5"]
    for flag in (
        f"--tokenizer={made}/huggingface",
        "--vocab_rows=300",
        "--allow_left_over",
        "--map=a=b",
    ):
        assert main(["convert", *to, flag]) == 2
        assert "holds adapters alone" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_an_adapter_of_a_checkpoint_without_its_record(lora, tmp_path, capsys):
    shutil.copytree(lora, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    to = [f"--from={tmp_path}/run", "--format=peft", "--base=google/t5"]
    assert main(["convert", *to, f"--to={tmp_path}/a"]) == 2
    assert "does not record its model" in capsys.readouterr().err
    lines = ["from __gin__ import dynamic_registration", "from instruct.models import config"]
    for name, value in dataclasses.asdict(MODEL).items():
        lines.append(f"config.ModelConfig.{name} = {value!r}")
    (tmp_path / "model.gin").write_text("\n".join(lines))
    gin = f"--gin_file={tmp_path}/model.gin"
    assert main(["convert", *to, gin, f"--to={tmp_path}/a"]) == 0
