"""A damaged or strange GGUF file is refused in one sentence that names the file."""

import struct
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime.checkpoints.gguf import find_gguf, read_gguf
from layerguard.runtime.errors import InputError
from tests.gguf_files import write

MATRIX = np.arange(64, dtype=np.float32).reshape(2, 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One matrix and one vector."""
    tensors = {"token_embd.weight": MATRIX, "output_norm.weight": np.ones(32, np.float32)}
    values = {"general.name": "small", "llama.block_count": 1, "tokenizer.ggml.tokens": ["a", "b"]}
    write(tmp_path / "small.gguf", "llama", values, tensors)
    return tmp_path / "small.gguf"


def test_what_was_written_is_read(file: Path) -> None:
    """Metadata of every kind, shapes in PyTorch's order, and the values."""
    found = read_gguf(file)
    assert found.architecture == "llama"
    assert found.metadata["tokenizer.ggml.tokens"] == ["a", "b"]
    matrix, vector = found.tensors
    assert (matrix.name, matrix.type, matrix.shape) == ("token_embd.weight", "F32", (2, 32))
    np.testing.assert_array_equal(matrix.read(), MATRIX)
    assert vector.shape == (32,)


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    """At every byte of the header and at some of the tensors, in one line."""
    data = file.read_bytes()
    tensors = read_gguf(file).tensors
    for size in [*range(tensors[0].offset), tensors[0].offset + 7, len(data) - 33]:
        file.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"^small\.gguf[ :]") as caught:
            read_gguf(file)
        assert "\n" not in str(caught.value)
        assert "expected" in str(caught.value)


@pytest.mark.parametrize("count", [2**40, 2**63, 2**64 - 1])
def test_a_count_beyond_the_file_is_refused(file: Path, count: int) -> None:
    """Before anything of that size is made: of tensors, of metadata, of a key's length."""
    data = file.read_bytes()
    for place in (8, 16, 24):
        file.write_bytes(data[:place] + struct.pack("<Q", count) + data[place + 8 :])
        with pytest.raises(InputError, match="is damaged"):
            read_gguf(file)


def test_other_byte_order_and_versions_are_refused(file: Path) -> None:
    """Each with what the file is, and what is read."""
    data = file.read_bytes()
    file.write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])
    with pytest.raises(InputError, match="is big-endian; expected little-endian"):
        read_gguf(file)
    file.write_bytes(data[:4] + struct.pack("<I", 1) + data[8:])
    with pytest.raises(InputError, match="GGUF version 1; expected 2 or 3"):
        read_gguf(file)
    file.write_bytes(b"PK\3\4" + data[4:])
    with pytest.raises(InputError, match=r"starts with b'PK.*expected b'GGUF'"):
        read_gguf(file)


@pytest.mark.parametrize(("type_id", "words"), [(99, "type 99"), (9, "type 9"), (4, "type 4")])
def test_a_type_that_cannot_be_dequantised_is_refused(file: Path, type_id: int, words: str) -> None:
    """A number that GGUF does not know, and one that is for products alone (Q8_1)."""
    data = file.read_bytes()
    name = b"output_norm.weight"
    place = data.index(name) + len(name) + 4 + 8  # dimensions, one side
    file.write_bytes(data[:place] + struct.pack("<I", type_id) + data[place + 4 :])
    with pytest.raises(InputError, match=rf"output_norm\.weight' is stored in {words}"):
        read_gguf(file)


def test_a_part_of_several_files_is_refused(file: Path, tmp_path: Path) -> None:
    """By its metadata, and by its name where that says nothing."""
    write(tmp_path / "part.gguf", "llama", {"split.count": 2}, {"a.weight": MATRIX})
    with pytest.raises(InputError, match=r"part\.gguf is one part of a model of 2 files"):
        read_gguf(tmp_path / "part.gguf")
    named = file.rename(tmp_path / "small-00001-of-00002.gguf")
    with pytest.raises(InputError, match="is one part of a model"):
        read_gguf(named)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """When the tensor is read, by its name."""
    write(tmp_path / "bad.gguf", "llama", {}, {"a.weight": np.full((2, 32), np.inf, np.float32)})
    (tensor,) = read_gguf(tmp_path / "bad.gguf").tensors
    with pytest.raises(InputError, match=r"bad\.gguf: a\.weight has values that are not finite"):
        tensor.read()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """As is an empty one."""
    with pytest.raises(InputError, match=r"no\.gguf: No such file"):
        read_gguf(tmp_path / "no.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(InputError, match=r"empty\.gguf: .*expected a GGUF file"):
        read_gguf(tmp_path / "empty.gguf")


def test_which_file_a_path_means(file: Path, tmp_path: Path) -> None:
    """The file itself or the only one of a folder; none where other weights lie beside it."""
    assert find_gguf(file) == find_gguf(tmp_path) == file
    assert find_gguf(tmp_path / "nowhere") is None
    (tmp_path / "model.safetensors").touch()
    assert find_gguf(tmp_path) is None
    assert find_gguf(file) == file
