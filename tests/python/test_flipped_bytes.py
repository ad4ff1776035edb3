"""Whatever is damaged in a model's files, nothing but the documented exceptions comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import titer
from tiny_gguf import write_gguf
from titer.models.gguf_conversion import convert_gguf

CHANGED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def flipped(data: st.DataObject, whole: bytes, limit: int) -> bytes:
    """Change one byte, or three in a row, within the first `limit` bytes."""
    position = data.draw(st.integers(0, min(limit, len(whole)) - 1))
    new = bytes(data.draw(st.sampled_from([1, 3]).flatmap(lambda count: st.binary(min_size=count, max_size=count))))
    return (whole[:position] + new + whole[position + len(new) :])[: len(whole)]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@CHANGED
@given(data=st.data())
def test_any_flipped_byte_of_a_folder_is_refused_or_loads(folder: Path, data: st.DataObject) -> None:
    file = folder / data.draw(st.sampled_from(FILES))
    whole = file.read_bytes()
    file.write_bytes(flipped(data, whole, limit=2500 if file.suffix == ".safetensors" else len(whole)))
    try:
        model = titer.load_model(folder)
        model(torch.tensor([[3, 4, 5]]))
        assert model.chat_template is not None
        model.chat_template.render([{"role": "user", "content": "Hello"}])
    except (ValueError, OSError, IndexError) as error:
        assert str(error).isprintable()
    finally:
        file.write_bytes(whole)


@CHANGED
@given(data=st.data())
def test_any_flipped_byte_of_a_gguf_file_is_refused_or_converts(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("gguf")
    file = folder / "model.gguf"
    whole = write_gguf(tiny_folder, file).read_bytes()
    file.write_bytes(flipped(data, whole, limit=12_000))  # the header
    converted = folder / "converted"
    converted.mkdir()
    try:
        convert_gguf(file, converted, provenance={})
        titer.load_model(converted)
    except (ValueError, OSError, IndexError) as error:
        assert str(error).isprintable()
    finally:
        shutil.rmtree(folder)
