"""The sources keep the layers: kernels <- core <- { attacks, defenses } <- python, torch only where it belongs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What each folder may include of the others.
MAY_INCLUDE = {
    "kernels": {"kernels"},
    "core": {"kernels", "core"},
    "attacks": {"kernels", "core", "attacks"},
    "defenses": {"kernels", "core", "defenses"},
    "python": {"kernels", "core", "attacks", "defenses", "python"},
}
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".inc"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
TORCH = ("torch/", "ATen/", "c10/", "caffe2/")


def sources(layer: str) -> list[Path]:
    return sorted(path for path in (ROOT / layer).rglob("*") if path.suffix in SUFFIXES)


def includes(path: Path) -> list[str]:
    return [name for _, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def layer_of(name: str, source: Path) -> str | None:
    """The layer that an included file belongs to; None for files from outside."""
    public = re.match(r"titer/(\w+)/", name)
    if public:
        return public[1]
    roots = [source.parent, *(ROOT / layer / inner for layer in MAY_INCLUDE for inner in ("", "src", "include"))]
    for root in roots:
        file = (root / name).resolve()
        if file.is_file() and file.is_relative_to(ROOT):
            return file.relative_to(ROOT).parts[0]
    return None


def violations(layer: str, source: Path, text_includes: list[str]) -> Iterator[str]:
    for name in text_includes:
        found = layer_of(name, source)
        if found in MAY_INCLUDE and found not in MAY_INCLUDE[layer]:
            yield f"{source.relative_to(ROOT)} includes {name}, which is {found}"


@pytest.mark.parametrize("layer", MAY_INCLUDE)
def test_a_layer_includes_only_what_lies_below_it(layer: str) -> None:
    assert [line for source in sources(layer) for line in violations(layer, source, includes(source))] == []


def test_sources_are_found() -> None:
    for layer in ("kernels", "core", "attacks", "python"):
        assert len(sources(layer)) > 3
    assert "titer/core/session.h" in includes(ROOT / "attacks/include/titer/attacks/prompt_attack.h")


@pytest.mark.parametrize(
    ("layer", "include"),
    [
        ("kernels", "titer/core/model_config.h"),
        ("core", "titer/attacks/prompt_attack.h"),
        ("core", "search/candidate_sampler.h"),
        ("attacks", "titer/defenses/filter.h"),
        ("attacks", "bindings.h"),
        ("defenses", "titer/attacks/prompt_attack.h"),
    ],
)
def test_a_forbidden_include_is_found(layer: str, include: str) -> None:
    assert list(violations(layer, ROOT / layer / "some_file.cpp", [include]))


def test_defenses_exist_only_with_content() -> None:
    assert not (ROOT / "defenses").exists() or sources("defenses")


@pytest.mark.parametrize("layer", ["kernels", "core", "attacks"])
def test_the_header_that_includes_all_of_torch_is_banned(layer: str) -> None:
    banned = ("torch/torch.h", "torch/all.h", "torch/extension.h", "ATen/ATen.h")
    assert [(source, name) for source in sources(layer) for name in includes(source) if name in banned] == []


def test_cuda_sources_include_no_torch_header() -> None:
    cuda = [source for layer in MAY_INCLUDE for source in sources(layer) if source.suffix in (".cu", ".cuh")]
    assert cuda
    for source in cuda:
        assert [name for name in reached(source) if name.startswith(TORCH)] == []


def reached(source: Path) -> set[str]:
    """Names of everything that a file includes, directly or through files of the repository."""
    names: set[str] = set()
    pending = [source]
    seen = set(pending)
    while pending:
        current = pending.pop()
        for name in includes(current):
            names.add(name)
            for root in (current.parent, *(ROOT / layer / "include" for layer in MAY_INCLUDE), ROOT / "core/src",
                         ROOT / "kernels/src", ROOT / "attacks"):  # fmt: skip
                file = (root / name).resolve()
                if file.is_file() and file not in seen:
                    seen.add(file)
                    pending.append(file)
    return names


def parser_sources() -> list[Path]:
    """The sources of the target titer_parsers, as CMake lists them."""
    text = (ROOT / "core/CMakeLists.txt").read_text()
    listed = re.findall(r"target_sources\(titer_parsers([^)]*)\)", text)
    return [ROOT / "core" / name for block in listed for name in re.findall(r"src/\S+\.cpp", block)]


def test_parsers_reach_no_torch_header() -> None:
    parsers = parser_sources()
    assert {"json.cpp", "safetensors.cpp", "tokenizer.cpp", "yaml_options.cpp", "run_log.cpp", "prompt.cpp"} <= {
        path.name for path in parsers
    }
    for source in parsers:
        assert [name for name in reached(source) if name.startswith(TORCH)] == [], source.name


def test_public_headers_include_no_private_one() -> None:
    for layer in ("kernels", "core", "attacks"):
        for header in (ROOT / layer / "include").rglob("*.h"):
            for name in includes(header):
                if name.startswith("titer/") and name != "titer/export.h":
                    assert any((ROOT / other / "include" / name).is_file() for other in MAY_INCLUDE), (header, name)
                assert "nlohmann" not in name and "yaml-cpp" not in name, header


def test_folders_have_no_drawer_for_everything() -> None:
    vague = re.compile(r"(utils?|helpers?|misc|common)\b", re.IGNORECASE)
    assert [source for layer in MAY_INCLUDE for source in sources(layer) if vague.search(source.stem)] == []
