"""Fetches, converts and describes model folders.

A model folder is what Hugging Face writes: `config.json`, safetensors weights, `tokenizer.json` and the chat template.
Converted models are kept under `~/.cache/titer/models` (or `$XDG_CACHE_HOME/titer/models`); delete a folder there to
free its space, the next `get` makes it again.
"""

from titer.models.description import show
from titer.models.fetching import cache_folder, get
from titer.models.packaged_gguf import PACKAGED_MODELS

__all__ = ["PACKAGED_MODELS", "cache_folder", "get", "show"]
