"""Failures of the storage: recognised whatever wraps them, and told from everything else."""

import errno
import os

import pytest

from instruct.errors import (
    RunFailed,
    UserError,
    explaining_memory_failures,
    explaining_storage_failures,
    memory_failure,
    storage_error_number,
    storage_failure,
)

TENSORSTORE = (
    'PERMISSION_DENIED: Error opening "zarr" driver: Error writing "a/.zarray" in OCDBT database '
    'at local file "/runs/a/": Failed to write local file "/runs/a/manifest.ocdbt.__lock" '
    "[OS error {number}: {name} {words}] [source locations='x.cc:1']"
)
NUMBERS = (errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.ESTALE, errno.ENOENT)
NUMBERS += (errno.ENOSPC, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ETIMEDOUT)


def wrapped(outer: Exception, inner: BaseException) -> Exception:
    try:
        raise outer from inner
    except type(outer) as error:
        return error


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_every_errno_names_file_cause_and_remedy(number):
    words, name = os.strerror(number), errno.errorcode[number]
    plain = OSError(number, words, "/runs/a/manifest.ocdbt")
    text = TENSORSTORE.format(number=number, name=name, words=words)
    for error in (
        plain,
        wrapped(RuntimeError("a task group failed"), plain),
        ExceptionGroup("several", [KeyError("a"), plain]),
        ValueError(text),
        wrapped(OSError(number, words), OSError(number, words, "/runs/a/manifest.ocdbt")),
    ):
        message = storage_failure(error)
        assert message is not None, error
        assert "/runs/a/manifest.ocdbt" in message and f"({name})" in message, message
        assert "__lock" not in message and "give the same command again" in message
        assert ("no space left" in message) == (number in (errno.ENOSPC, errno.EDQUOT))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a shape"),
        KeyError("a"),
        UserError("No such file or directory: mend it"),
        wrapped(UserError("x"), OSError(errno.EIO, "Input/output error")),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ProcessLookupError(errno.ESRCH, "No such process"),
        OSError("no number"),
    ],
    ids=repr,
)
def test_what_is_no_failure_of_the_storage(error):
    assert storage_failure(error) is None and storage_error_number(error) is None


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_in_the_way_is_named_not_the_temporary_file(tmp_path, kind):
    place, temporary = tmp_path / "run.json", tmp_path / "run.json.tmp"
    temporary.write_text("{}")
    place.mkdir() if kind == "folder" else place.write_text("")
    with pytest.raises(RunFailed) as caught, explaining_storage_failures():
        os.replace(temporary, place) if kind == "folder" else place.mkdir()
    assert f"{place}:" in str(caught.value)
    assert f"Move the {kind} of that name away" in str(caught.value)


def test_a_failure_becomes_a_message_with_its_consequence():
    expected = r"/a/b: Input/output error \(EIO\).* Step 7 is whole\."
    explained = explaining_storage_failures(lambda: "Step 7 is whole.")
    with pytest.raises(RunFailed, match=expected), explained:
        raise OSError(errno.EIO, "Input/output error", "/a/b")
    with pytest.raises(KeyError), explaining_storage_failures():
        raise KeyError("a defect")
    with pytest.raises(UserError), explaining_storage_failures():
        raise UserError("a mistake") from OSError(errno.EIO, "Input/output error")


def test_a_bucket_that_failed_after_all_attempts():
    text = (
        'ABORTED: Error opening "zarr" driver: Error reading "k/.zarray" in OCDBT database at '
        "gs://bucket/runs/a/: Error reading gs://bucket/runs/a/manifest.ocdbt: All 32 retry "
        "attempts failed: Service Unavailable [http_response_code='503']"
    )
    for error in (ValueError(text), OSError(errno.EIO, "x", "gs://bucket/runs/a/manifest.ocdbt")):
        message = storage_failure(error)
        assert message is not None and "gs://bucket/runs/a/" in message
        assert "after many attempts" in message and "Check the network" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 512 bytes.", "Out of memory allocating 512"),
        (
            "INTERNAL: RESOURCE_EXHAUSTED: Out of memory.\nBuffer 1: 20 GiB\n...",
            "memory (Out of memory).",
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. " + "x" * 999,
            "space hbm. xx",
        ),
    ],
)
def test_devices_that_are_too_small_are_told_in_one_line(text, words):
    message = "too little memory .* Use less"
    with pytest.raises(RunFailed, match=message) as caught, explaining_memory_failures("Use less."):
        raise RuntimeError(text)
    said = str(caught.value)
    assert words in said and "Buffer" not in said and "\n" not in said and len(said) < 300


def test_what_is_no_lack_of_memory():
    full = RuntimeError("RESOURCE_EXHAUSTED: write failed: No space left on device")
    for error in (full, ValueError("RESOURCE_EXHAUSTED"), RuntimeError("INTERNAL: a defect")):
        assert memory_failure(error) is None
        with pytest.raises(type(error)), explaining_memory_failures("Use less."):
            raise error
