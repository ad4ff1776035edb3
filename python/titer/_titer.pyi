"""
Compiled core of titer.
"""

from __future__ import annotations
import collections.abc
import os
import pathlib
import torch
import typing

__all__: list[str] = [
    "AttackResult",
    "AttackStep",
    "CandidateScorer",
    "CausalLM",
    "Cost",
    "Dataset",
    "FinetuneOptions",
    "FinetuneResult",
    "FinetuneStep",
    "Finetuning",
    "GCG",
    "Generation",
    "LoraAdapter",
    "Prompt",
    "PromptAttack",
    "Record",
    "ReferenceScorer",
    "Session",
    "Shard",
    "System",
    "Tokenizer",
    "TrainingData",
    "build_info",
    "finetune",
    "folder_file",
    "generate",
    "merge",
    "read_folder_file",
    "read_folder_json",
]

class Record:
    """
    One record of a `Dataset`.
    """
    def __repr__(self) -> str: ...
    @property
    def from_prompt(self) -> bool:
        """
        Whether the file has `prompt` and `response`, which without a chat template are plain text.
        """
    @property
    def hash(self) -> str:
        """
        SHA-256 of the canonical JSON, hexadecimal.
        """
    @property
    def id(self) -> str | None:
        """
        Name that no other record of the file has, or None.
        """
    @property
    def messages(self) -> list[dict[str, str]]:
        """
        What `Prompt.from_chat` takes, ending with the answer: dictionaries of `role` and `content`. `prompt` and `response` of a file are one user and one assistant message.
        """
    @property
    def metadata(self) -> dict[str, typing.Any]:
        """
        Dictionary, empty if the file has none.
        """
    @property
    def task(self) -> str | None:
        """
        Name of the task that the record belongs to, or None.
        """

class Dataset:
    """
    Training records from a JSON lines file: checked when it is opened, read one at a time, named by hashes.

    Each line is one object, at most 16 MiB long, with ``messages`` (an optional system message, then user and assistant in
    turn, the last one the assistant's) or with ``prompt`` and ``response``, and if wanted ``id`` (a string that no other
    record has), ``task`` (a string) and ``metadata`` (an object); any other key, a blank line or an empty answer is an error
    that names file, line and field.

    The hash of a record is the SHA-256 of its canonical JSON, in UTF-8:
    ``json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)``; integers outside of 64 bits count as
    floats. The Merkle root is the tree hash of RFC 6962 over these hashes `h` (32 bytes each) in the order of the file: a
    leaf is ``sha256(b"\\x00" + h)``, a node ``sha256(b"\\x01" + left + right)``.

    A data set takes 40 bytes of memory for each record and keeps its file open. A record whose content has changed since
    then is refused.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a regular file, has no records, or one of them is not as described above.

    Examples
    --------
    >>> record = {"id": "sum-1", "prompt": "Two plus two?", "response": " Four.", "metadata": {"difficulty": 0.5}}
    >>> with open("sums.jsonl", "w") as file:
    ...     print(json.dumps(record), file=file)
    >>> data = titer.Dataset("sums.jsonl")
    >>> data
    Dataset('sums.jsonl', 1 record, merkle_root='6d6673f5867d...')
    >>> data[0].messages
    [{'role': 'user', 'content': 'Two plus two?'}, {'role': 'assistant', 'content': ' Four.'}]
    >>> data[0].metadata["difficulty"]
    0.5
    >>> [one.id for one in data]
    ['sum-1']
    """
    @typing.overload
    def __getitem__(self, index: typing.SupportsInt) -> Record:
        """
        One record; negative indices count from the end.
        """
    @typing.overload
    def __getitem__(self, index: slice) -> list[Record]:
        """
        A list of records.
        """
    def __init__(self, path: os.PathLike | str | bytes) -> None: ...
    def __iter__(self) -> collections.abc.Iterator[Record]:
        """
        One record after the other, in the order of the file.
        """
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    @property
    def hashes(self) -> list[str]:
        """
        Hash of every record, hexadecimal.
        """
    @property
    def merkle_root(self) -> str:
        """
        Names all records and their order, hexadecimal.
        """
    @property
    def path(self) -> pathlib.Path:
        """
        The file, as it was given.
        """

class Tokenizer:
    """
    BPE tokenizer of a Hugging Face ``tokenizer.json``.

    Gives the ids and the text that the ``tokenizers`` package gives, or refuses to load.

    Examples
    --------
    >>> tokenizer = titer.Tokenizer.from_file(model_folder / "tokenizer.json")
    >>> tokenizer.decode(tokenizer.encode("Hello, world"))
    'Hello, world'
    """
    @staticmethod
    def from_file(path: os.PathLike | str | bytes) -> Tokenizer:
        """
        Read a ``tokenizer.json``.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is malformed or needs a feature that is not supported; the message names the key.
        """
    @staticmethod
    def from_json(text: str, origin: str = "tokenizer.json") -> Tokenizer:
        """
        The same from memory; `origin` names the text in error messages.
        """
    def bytes_of(self, ids: collections.abc.Sequence[typing.SupportsInt]) -> bytes:
        """
        Bytes of the text that token ids stand for inside a longer one; unlike `decode`, nothing is stripped.
        """
    def decode(self, ids: collections.abc.Sequence[typing.SupportsInt], skip_special_tokens: bool = False) -> str:
        """
        Text of token ids; invalid UTF-8 becomes U+FFFD.
        """
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """
        Token ids of a text.
        """
    def encode_batch(self, texts: collections.abc.Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """
        Token ids of each text.
        """
    def encode_with_offsets(
        self, text: str, add_special_tokens: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """
        Token ids of a text, and the range of its UTF-8 bytes that each covers.
        """
    def id_to_token(self, id: typing.SupportsInt) -> str:
        """
        Token of an id as spelled in the file.
        """
    def is_added_token(self, id: typing.SupportsInt) -> bool:
        """
        Whether the id is an added token.
        """
    def is_special_token(self, id: typing.SupportsInt) -> bool:
        """
        Whether the id is a special token.
        """
    def text_after(
        self, before: str, ids: collections.abc.Sequence[typing.SupportsInt], skip_special_tokens: bool = False
    ) -> str:
        """
        Text that token ids add behind another one; a leading space goes only where the tokenizer would add it.
        """
    def token_to_id(self, token: str) -> int | None:
        """
        Id of a token as spelled in the file, or None.
        """
    @property
    def vocab_size(self) -> int:
        """
        Largest id plus one, added tokens included.
        """

class CausalLM:
    """
    Weights and configuration; use :func:`titer.load_model`.
    """
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """
        Logits of whole sequences, without caches or gradients.

        Parameters
        ----------
        ids : Tensor
            `[B, L]` int64 token ids.

        Returns
        -------
        Tensor
            `[B, L, V]` in the model's dtype.

        Examples
        --------
        >>> model(torch.tensor([[1, 2, 3]])).shape[:2]
        torch.Size([1, 3])
        """
    @typing.overload
    def __init__(
        self, folder: str, *, dtype: str | None = None, device: str = "cpu", check_finite: bool = False
    ) -> None: ...
    @typing.overload
    def __init__(self, config_json: str, state_dict: collections.abc.Mapping[str, torch.Tensor]) -> None: ...
    @typing.overload
    def __init__(self, other: CausalLM) -> None: ...
    def check_finite(self) -> None:
        """
        Raise ValueError naming the first weight that holds an infinity or NaN.
        """
    def state_dict(self) -> dict[str, torch.Tensor]:
        """
        Every weight by its name, without a copy.
        """
    def weights_sha256(self) -> str:
        """
        Return the SHA-256 of every weight's name, dtype, shape and bytes, in hexadecimal digits.
        """
    @property
    def device(self) -> str:
        """
        Device of the weights.
        """
    @property
    def dtype(self) -> str:
        """
        Name of the weights' dtype, for example ``float32``.
        """
    @property
    def eos_token_ids(self) -> list[int]:
        """
        Ids that end an answer.
        """
    @property
    def family(self) -> str:
        """
        Architecture: ``model_type`` of config.json.
        """
    @property
    def fingerprint(self) -> str:
        """
        Differs between models: family, dtype, and a hash of a sample of the weights.
        """
    @property
    def max_length(self) -> int:
        """
        Longest sequence, in tokens.
        """
    @property
    def num_parameters(self) -> int:
        """
        Number of parameters, tied ones once.
        """
    @property
    def vocab_size(self) -> int:
        """
        Rows of the embedding.
        """
    @property
    def weight_bytes(self) -> int:
        """
        Bytes of all parameters, tied ones once.
        """

class Generation:
    """
    What a model answers to one prompt, and why it ends. ``str()`` gives the text.

    Examples
    --------
    >>> answer = titer.generate(model, "Hello", max_new_tokens=4)
    >>> answer.finish_reason
    'length'
    >>> len(answer.ids), len(answer.log_probs)
    (4, 4)
    """
    def __eq__(self, arg0: typing.Any) -> bool: ...
    def __getstate__(self) -> tuple: ...
    def __hash__(self) -> int: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, arg0: tuple) -> None: ...
    def __str__(self) -> str: ...
    @property
    def finish_reason(self) -> str:
        """
        Why the answer ends: ``stop_token`` (an end-of-sequence token), ``stop_string``, ``length`` (max_new_tokens) or ``context`` (no room in the model's context).
        """
    @property
    def ids(self) -> list[int]:
        """
        All generated token ids: the end-of-sequence token, or the one that completed a stop string, is the last where it came.
        """
    @property
    def log_probs(self) -> list[float]:
        """
        Natural logarithm of the probability of each id under the model itself: before min_new_tokens, temperature, top_k and top_p change it.
        """
    @property
    def stop_string(self) -> str | None:
        """
        The stop string that ended the answer, or None.
        """
    @property
    def text(self) -> str:
        """
        The answer without special tokens, cut before the stop string that ended it.
        """

class Prompt:
    """
    A prompt with one slot that an attacker writes, cut into the token spans before, slot, after and target.

    The spans are cut from the tokenized whole, so that they are what the model reads.

    Examples
    --------
    >>> prompt = titer.Prompt.from_chat(model, "Tell me about Saturn. {slot}", target="NO WAY")
    >>> len(prompt.slot_ids) > 0
    True
    """
    @staticmethod
    def from_chat(
        model: typing.Any,
        messages: typing.Any,
        target: str,
        slot: str = "{slot}",
        initial: str = "x x x x x x x x x x x x x x x x x x x x",
    ) -> Prompt:
        """
        Render messages with the model's chat template.

        Parameters
        ----------
        model : Model
            Supplies tokenizer and chat template.
        messages : str or list of dict
            A user message, or messages with ``role`` and ``content``; one content holds `slot` exactly once.
        target : str
            What the model should answer.
        slot : str
            Marks the place that the attacker writes.
        initial : str
            Text that stands in the slot at first; its number of tokens is the length of the slot.

        Raises
        ------
        ValueError
            If the slot is missing or repeated, the target is empty, or a border between the spans falls inside a token.
        """
    @staticmethod
    def from_text(
        model: typing.Any,
        text: str,
        target: str,
        slot: str = "{slot}",
        initial: str = "x x x x x x x x x x x x x x x x x x x x",
    ) -> Prompt:
        """
        Take a plain text without a chat template. Tokens that the tokenizer puts before every text are kept.

        Parameters
        ----------
        model : Model or Tokenizer
            Supplies the tokenizer.
        text : str
            Holds `slot` exactly once.
        target, slot, initial
            As in :meth:`from_chat`.
        """
    def __len__(self) -> int: ...
    def answer_text(self, slot_text: str, ids: collections.abc.Sequence[typing.SupportsInt]) -> str:
        """
        The text that these ids say as an answer to the prompt with this slot text: what is compared with the target. Special tokens are left out unless the target holds some.
        """
    def encode(self, slot_text: str) -> list[int]:
        """
        The model's input for a slot text, up to where the model answers.
        """
    def slot_text(self, slot_ids: collections.abc.Sequence[typing.SupportsInt]) -> str:
        """
        Text that an attacker writes for these ids.
        """
    @typing.overload
    def valid(self, slot_ids: collections.abc.Sequence[typing.SupportsInt]) -> bool:
        """
        Whether these ids come back from the text they spell, rendered and tokenized in context.
        """
    @typing.overload
    def valid(
        self,
        candidates: torch.Tensor
        | collections.abc.Sequence[int]
        | collections.abc.Sequence[collections.abc.Sequence[int]],
    ) -> torch.Tensor:
        """
        The same of every row of `[B, S]` int64 ids: `[B]` bool.
        """
    def with_slot(self, initial: str) -> Prompt:
        """
        The same prompt with another text in the slot.
        """
    @property
    def after_ids(self) -> list[int]:
        """
        Ids between slot and answer.
        """
    @property
    def before_ids(self) -> list[int]:
        """
        Ids before the slot.
        """
    @property
    def slot_ids(self) -> list[int]:
        """
        Ids of the initial slot text.
        """
    @property
    def target(self) -> str:
        """
        The target text.
        """
    @property
    def target_ids(self) -> list[int]:
        """
        Ids of the target.
        """
    @property
    def template_hash(self) -> str:
        """
        SHA-256 of the chat template; empty for plain text.
        """
    @property
    def tokenizer(self) -> Tokenizer:
        """
        The tokenizer.
        """

class Shard:
    """
    One rank of several and how it reaches the others; use :class:`titer.Shard`.
    """
    def __init__(
        self,
        rank: typing.SupportsInt,
        world: typing.SupportsInt,
        all_gather: collections.abc.Callable[[torch.Tensor], list[torch.Tensor]],
        broadcast: collections.abc.Callable[[torch.Tensor], None],
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def rank(self) -> int:
        """
        Of this process, from 0.
        """
    @property
    def world(self) -> int:
        """
        Number of ranks.
        """

class Cost:
    """
    What has been spent.
    """
    def __repr__(self) -> str: ...
    @property
    def flops(self) -> float:
        """
        Executed floating-point operations, 2 per multiply-add.
        """
    @property
    def peak_bytes(self) -> int:
        """
        Largest memory beyond what was held when the session opened, bytes.
        """
    @property
    def queries(self) -> int:
        """
        Candidates scored or texts generated.
        """
    @property
    def seconds(self) -> float:
        """
        Wall time, seconds.
        """
    @property
    def tokens(self) -> int:
        """
        Nominal tokens of those: whole sequences, whatever was reused.
        """

class Session:
    """
    One prompt opened on one system. Belongs to one thread at a time.

    Examples
    --------
    >>> session = titer.System(model).open(prompt)
    >>> gradient = session.token_gradient(prompt.slot_ids)
    >>> session.losses([prompt.slot_ids, prompt.slot_ids]).shape
    torch.Size([2])
    """
    def embedding_gradient(
        self,
        slot_ids: torch.Tensor
        | collections.abc.Sequence[int]
        | collections.abc.Sequence[collections.abc.Sequence[int]],
        loss: str = "cross_entropy",
        mellowmax_alpha: typing.SupportsFloat = 1.0,
        cw_margin: typing.SupportsFloat = 0.001,
    ) -> torch.Tensor:
        """
        Gradient `[S, d]` float32 of the loss with respect to the embedding rows of the slot `[S]`; rebases to it.
        """
    def generate(
        self,
        slot_text: str,
        *,
        max_new_tokens: int = 64,
        min_new_tokens: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: list[str] = [],
        seed: int = 0,
    ) -> Generation:
        """
        The system's answer when the slot holds this text, rendered and tokenized anew.

        Parameters
        ----------
        max_new_tokens : int, default 64
            Most tokens to generate per prompt. Unit: tokens. Must be at least 1.
        min_new_tokens : int, default 0
            Tokens that come before an end-of-sequence token may come, or a stop string counts. Unit: tokens. Must be at least 0.
        temperature : float, default 0.0
            Divides the logits before sampling; 0 takes the most likely token. Must be at least 0.
        top_k : int, default 0
            Samples among that many of the most likely tokens; 0 among all. Unit: tokens. Must be at least 0.
        top_p : float, default 1.0
            Samples among the fewest of the most likely tokens that have this probability together, once the temperature and top_k have changed it; 1 among all. Must be greater than 0 and at most 1.
        stop : list[str], default []
            Texts that end an answer, which is cut before the first of them.
        seed : int, default 0
            Key of the random draws. Must be at least 0.
        """
    def losses(
        self,
        candidates: torch.Tensor
        | collections.abc.Sequence[int]
        | collections.abc.Sequence[collections.abc.Sequence[int]],
    ) -> torch.Tensor:
        """
        Losses of variants of the slot.

        Parameters
        ----------
        candidates : Tensor or list of lists
            `[B, S]` int64 token ids; row b replaces the slot.

        Returns
        -------
        Tensor
            `[B]` float32, mean negative log-likelihood of the target tokens, nats.

        Raises
        ------
        ValueError
            If S differs from the opened slot.
        IndexError
            If an id is outside the vocabulary.
        """
    def promising_tokens(self, gradient: torch.Tensor, allowed: torch.Tensor, k: typing.SupportsInt) -> torch.Tensor:
        """
        The allowed tokens of lowest token gradient at every position, without forming that gradient.

        Parameters
        ----------
        gradient : Tensor
            `[S, d]` of floating point, any mix of embedding gradients; rounded to the model's dtype.
        allowed : Tensor
            `[A]` bool; ids from A on are not allowed.
        k : int

        Returns
        -------
        Tensor
            `[S, m]` int64, best first, of equal ones the lowest id; m is the smaller of k and the number of allowed tokens.

        Raises
        ------
        ValueError
            If a shape does not fit, k is below 1, or the gradient of an allowed token is not finite.
        TypeError
            If a dtype does not fit.
        """
    def rebase(
        self,
        slot_ids: torch.Tensor
        | collections.abc.Sequence[int]
        | collections.abc.Sequence[collections.abc.Sequence[int]],
    ) -> None:
        """
        Make `slot_ids`, `[S]` int64 or a list of int, the text that candidates are variants of.
        """
    def score(
        self,
        candidates: torch.Tensor
        | collections.abc.Sequence[int]
        | collections.abc.Sequence[collections.abc.Sequence[int]],
        loss: str = "cross_entropy",
        mellowmax_alpha: typing.SupportsFloat = 1.0,
        cw_margin: typing.SupportsFloat = 0.001,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Losses `[B]` float32 in the unit of `loss`, and `[B]` bool: every target token is the model's first choice.
        """
    def token_gradient(
        self,
        slot_ids: torch.Tensor
        | collections.abc.Sequence[int]
        | collections.abc.Sequence[collections.abc.Sequence[int]],
        loss: str = "cross_entropy",
        mellowmax_alpha: typing.SupportsFloat = 1.0,
        cw_margin: typing.SupportsFloat = 0.001,
    ) -> torch.Tensor:
        """
        Gradient `[S, V]` float32 of the loss with respect to a one-hot encoding of the slot `[S]`; rebases to it.
        """
    @property
    def cost(self) -> Cost:
        """
        What this session has spent.
        """
    @property
    def prompt(self) -> Prompt:
        """
        The opened prompt.
        """

class CandidateScorer(Session):
    """
    The session of a bare model: exact scores of many slot variants at the cost of what they change.
    """
    def __init__(self, model: CausalLM, prompt: Prompt, *, batch_size: typing.SupportsInt | None = None) -> None: ...

class ReferenceScorer(Session):
    """
    The plain oracle of CandidateScorer: whole sequences, full logits. Slow.
    """
    def __init__(self, model: CausalLM, prompt: Prompt, *, batch_size: typing.SupportsInt | None = None) -> None: ...

class System:
    """
    Anything that answers a prompt; ``System(model)`` is a bare model.
    """
    def __init__(self, model: CausalLM) -> None: ...
    def open(
        self, prompt: Prompt, *, batch_size: typing.SupportsInt | None = None, shard: Shard | None = None
    ) -> Session:
        """
        Open a session; `batch_size` caps the candidates computed at a time, and with `shard`, a :class:`Shard`, ranks that open the same prompt and make the same calls share the work.
        """
    @property
    def fingerprint(self) -> str:
        """
        A text that changes when the system answers differently; checkpoints hold it.
        """

class AttackStep:
    """
    One step of a search, as progress callbacks see it.
    """
    @property
    def best_loss(self) -> float:
        """
        Lowest loss so far.
        """
    @property
    def cost(self) -> Cost:
        """
        What the run has spent so far.
        """
    @property
    def draws(self) -> int:
        """
        Candidates drawn to find them.
        """
    @property
    def ids(self) -> list[int]:
        """
        Token ids of the slot that the step ends with.
        """
    @property
    def loss(self) -> float:
        """
        Loss that the step ends with.
        """
    @property
    def step(self) -> int:
        """
        Steps done.
        """
    @property
    def width(self) -> int:
        """
        Distinct valid candidates scored.
        """

class AttackResult:
    """
    What a prompt attack found.

    Examples
    --------
    >>> attack = titer.attacks.GCG(num_steps=2, search_width=8, seed=0)
    >>> result = attack.run(titer.System(model), prompt)
    >>> list(result.trace.columns[:2])
    ['step', 'loss']
    """
    @staticmethod
    def load(path: os.PathLike | str | bytes) -> AttackResult:
        """
        Read what :meth:`save` wrote.
        """
    def __repr__(self) -> str: ...
    def plot(self, ax: typing.Any = None) -> typing.Any:
        """
        Loss against step on matplotlib axes.
        """
    def save(self, path: os.PathLike | str | bytes) -> None:
        """
        Write the result as JSON; the file is complete or absent.
        """
    def to_json(self) -> str:
        """
        The result as a JSON object.
        """
    @property
    def attack(self) -> str:
        """
        Name of the attack.
        """
    @property
    def completion(self) -> str:
        """
        The model's answer to the final prompt.
        """
    @property
    def cost(self) -> Cost:
        """
        What the whole run has spent.
        """
    @property
    def ids(self) -> list[int]:
        """
        Token ids of the slot in the prompt.
        """
    @property
    def initial_completion(self) -> str:
        """
        The model's own answer before the attack.
        """
    @property
    def initial_loss(self) -> float:
        """
        Loss of the slot that the search started from.
        """
    @property
    def loss(self) -> float:
        """
        Loss of the final prompt, scored again at the end.
        """
    @property
    def options_json(self) -> str:
        """
        All options as a JSON object.
        """
    @property
    def steps(self) -> list[AttackStep]:
        """
        One :class:`AttackStep` per step.
        """
    @property
    def stop_reason(self) -> str:
        """
        ``num_steps``, ``early_stop`` or ``callback``.
        """
    @property
    def success(self) -> bool:
        """
        Greedy decoding of the final prompt starts with the target.
        """
    @property
    def target(self) -> str:
        """
        What the model should answer.
        """
    @property
    def template_hash(self) -> str:
        """
        SHA-256 of the chat template.
        """
    @property
    def text(self) -> str:
        """
        What the attacker writes into the slot.
        """
    @property
    def trace(self) -> typing.Any:
        """
        One row per step, a ``pandas.DataFrame``.
        """

class PromptAttack:
    """
    An attack that searches a prompt's slot.
    """
    def run(
        self,
        system: System,
        prompt: Prompt,
        *,
        progress: typing.Any = None,
        checkpoint: os.PathLike | str | bytes | None = None,
        resume: bool = False,
        log: os.PathLike | str | bytes | None = None,
        shard: Shard | None = None,
    ) -> AttackResult:
        """
        Run the attack.

        Parameters
        ----------
        system : System
            What is attacked.
        prompt : Prompt
            Where the attacker writes, and the target.
        progress : callable, optional
            Called with an :class:`AttackStep` after every step; returning False ends the search.
        checkpoint : path, optional
            State of the search, written during the run and when it is interrupted.
        resume : bool
            Continue from `checkpoint` where that exists.
        log : path, optional
            Append-only JSON lines: start, every step, result.
        shard : Shard, optional
            Ranks that share the scoring. Each runs the same attack on the same model and prompt, and gets the same result;
            callbacks and files are those of rank 0.

        Returns
        -------
        AttackResult
        """

class GCG(PromptAttack):
    """
    Greedy Coordinate Gradient (arXiv 2307.15043) on one prompt, with the options of nanoGCG.

    Examples
    --------
    >>> titer.attacks.GCG(num_steps=10, seed=1)
    GCG(num_steps=10, seed=1)
    """
    @staticmethod
    def describe() -> list:
        """
        Name, type, unit, range, default and meaning of every option.
        """
    @staticmethod
    def from_config(
        path: os.PathLike | str | bytes | None = None, assignments: collections.abc.Sequence[str] = []
    ) -> GCG:
        """
        Options of a YAML file, then of ``key=value`` texts.
        """
    def __init__(
        self,
        *,
        num_steps: int = 250,
        search_width: int = 512,
        batch_size: int | None = None,
        topk: int = 256,
        n_replace: int = 1,
        buffer_size: int = 0,
        loss: str = "cross_entropy",
        mellowmax_alpha: float = 1.0,
        cw_margin: float = 0.001,
        momentum: float = 0.0,
        stratified_positions: bool = False,
        early_stop: bool = False,
        allow_non_ascii: bool = False,
        filter_ids: bool = True,
        optim_str_init: list[str] = [],
        seed: int = 0,
    ) -> None:
        """
        Parameters
        ----------
        num_steps : int, default 250
            Search steps. Unit: steps. Must be at least 0.
        search_width : int, default 512
            Distinct valid candidates scored per step; a step whose neighbourhood holds fewer scores those. Unit: candidates. Must be at least 1.
        batch_size : int | None, default None
            Most candidates computed at a time: a cap on memory. Losses keep their values up to rounding. Unit: candidates. Must be at least 1.
        topk : int, default 256
            Replacements considered per position, best by gradient. Unit: tokens. Must be at least 1.
        n_replace : int, default 1
            Positions changed per candidate. Unit: tokens. Must be at least 1.
        buffer_size : int, default 0
            Best slots kept, the best of which is searched next; 0 moves to each step's best candidate, even to a worse one. Unit: slots. Must be at least 0.
        loss : str, default 'cross_entropy'
            What the search minimises. One of ``cross_entropy``, ``mellowmax``, ``carlini_wagner``.
        mellowmax_alpha : float, default 1.0
            Sharpness of mellowmax. Must be greater than 0.
        cw_margin : float, default 0.001
            How far the target must lead before carlini_wagner stops counting it. Unit: logits. Must be at least 0.
        momentum : float, default 0.0
            Share of earlier gradients in the one that ranks replacements; 0 uses the present one alone. Must be at least 0 and less than 1.
        stratified_positions : bool, default False
            Change every position equally often, as llm-attacks does, instead of uniformly at random.
        early_stop : bool, default False
            Stop as soon as greedy decoding of a candidate's rendered prompt starts with the target.
        allow_non_ascii : bool, default False
            Allow tokens beyond printable ASCII.
        filter_ids : bool, default True
            Score only candidates whose ids come back from the rendered and tokenised prompt.
        optim_str_init : list[str], default []
            Slot texts to start from, all of one token length; empty starts from the prompt's own.
        seed : int, default 0
            Key of the random draws. Must be at least 0.
        """
    def __repr__(self) -> str: ...
    @property
    def options(self) -> dict:
        """
        All options with their values.
        """

class TrainingData:
    """
    Token ids with the spans of their answers; :func:`titer.training.tokenise` makes it of records.

    Parameters
    ----------
    sequences : list of (ids, answers)
        Token ids, and `(begin, end)` of each answer in them.

    Examples
    --------
    >>> data = titer.training.TrainingData([([5, 6, 7, 8], [(2, 4)])])
    >>> len(data), data[0]
    (1, ([5, 6, 7, 8], [(2, 4)]))
    """
    def __getitem__(self, index: typing.SupportsInt) -> tuple[list[int], list[tuple[int, int]]]: ...
    def __init__(
        self,
        sequences: collections.abc.Sequence[
            tuple[
                collections.abc.Sequence[typing.SupportsInt],
                collections.abc.Sequence[tuple[typing.SupportsInt, typing.SupportsInt]],
            ]
        ],
    ) -> None: ...
    def __len__(self) -> int: ...

class FinetuneOptions:
    """
    What a fine-tuning run is, but for its data.

    Examples
    --------
    >>> titer.training.FinetuneOptions(lora_rank=8, learning_rate=1e-3)
    FinetuneOptions(lora_rank=8, learning_rate=0.001)
    """
    @staticmethod
    def describe() -> list:
        """
        Name, type, unit, range, default and meaning of every option.
        """
    @staticmethod
    def from_config(
        path: os.PathLike | str | bytes | None = None, assignments: collections.abc.Sequence[str] = []
    ) -> FinetuneOptions:
        """
        Options of a YAML file, then of ``key=value`` texts.
        """
    def __init__(
        self,
        *,
        method: str = "lora",
        target_modules: list[str] = [],
        lora_rank: int = 16,
        lora_alpha: float = 32.0,
        lora_dropout: float = 0.0,
        use_rslora: bool = False,
        optimizer: str = "adamw",
        learning_rate: float = 0.0002,
        weight_decay: float = 0.0,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_epsilon: float = 1e-08,
        muon_learning_rate: float = 0.02,
        muon_momentum: float = 0.95,
        lr_schedule: str = "linear",
        warmup_steps: int = 0,
        decay_start: float = 0.0,
        final_lr_ratio: float = 0.0,
        max_grad_norm: float = 1.0,
        batch_size: int = 8,
        num_epochs: int = 1,
        max_steps: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        """
        Parameters
        ----------
        method : str, default 'lora'
            What is trained. One of ``lora``, ``full``.
        target_modules : list[str], default []
            Linear layers that get an adapter, by the last parts of their names ("q_proj"); empty for all of the layers. Only for lora.
        lora_rank : int, default 16
            Rank r of adapters. Only for lora, as all of lora_*. Must be at least 1.
        lora_alpha : float, default 32.0
            Adapters are scaled by lora_alpha / r. Must be greater than 0.
        lora_dropout : float, default 0.0
            Share of an adapter's inputs that are dropped in a step. Must be at least 0 and less than 1.
        use_rslora : bool, default False
            Scale by lora_alpha / sqrt(r) instead (arXiv 2312.03732).
        optimizer : str, default 'adamw'
            adamw, or muon: that for matrices inside the layers and of adapters, AdamW for the rest. One of ``adamw``, ``muon``.
        learning_rate : float, default 0.0002
            Largest rate of AdamW. Must be greater than 0.
        weight_decay : float, default 0.0
            Decoupled weight decay, not of norms and biases; times the rate. Must be at least 0.
        adam_beta1 : float, default 0.9
            Decay of AdamW's mean gradient. Must be at least 0 and less than 1.
        adam_beta2 : float, default 0.999
            Decay of AdamW's mean squared gradient. Must be at least 0 and less than 1.
        adam_epsilon : float, default 1e-08
            Added to AdamW's denominator. Must be greater than 0.
        muon_learning_rate : float, default 0.02
            Largest rate of Muon. Must be greater than 0.
        muon_momentum : float, default 0.95
            Decay of Muon's mean gradient. Must be at least 0 and less than 1.
        lr_schedule : str, default 'linear'
            How rates go down after warm-up. One of ``constant``, ``linear``, ``cosine``.
        warmup_steps : int, default 0
            Rates rise from 0 in these; the first step of a warm-up changes nothing. Unit: steps. Must be at least 0.
        decay_start : float, default 0.0
            Share of all steps before rates go down, warm-up included. Not for constant. Must be at least 0 and less than 1.
        final_lr_ratio : float, default 0.0
            What rates go down to, of the largest. Not for constant. Must be between 0 and 1.
        max_grad_norm : float, default 1.0
            Longer gradients of a run are shortened to this; 0 leaves them. Must be at least 0.
        batch_size : int, default 8
            Of one step. Unit: sequences. Must be between 1 and 4294967295.
        num_epochs : int, default 1
            Passes over the data. Unit: epochs. Must be between 1 and 4294967295.
        max_steps : int | None, default None
            Steps in all, instead of num_epochs: more than an epoch has go on with the next. Unit: steps. Must be between 1 and 4294967295.
        shuffle : bool, default True
            Take every epoch in an order of its own.
        seed : int, default 0
            Key of the random draws: order, first weights, dropout. Must be at least 0.
        """
    def __repr__(self) -> str: ...
    @property
    def options(self) -> dict:
        """
        All options with their values.
        """

class FinetuneStep:
    """
    One step of a run, as progress callbacks see it.
    """
    @property
    def answer_tokens(self) -> int:
        """
        Tokens that were learned.
        """
    @property
    def grad_norm(self) -> float:
        """
        Length of the gradient before it was shortened.
        """
    @property
    def learning_rate(self) -> float:
        """
        Of AdamW in the step.
        """
    @property
    def loss(self) -> float:
        """
        Mean over the answers' tokens, nats, before the step.
        """
    @property
    def step(self) -> int:
        """
        Steps done.
        """

class LoraAdapter:
    """
    A trained low-rank adapter (LoRA, arXiv 2106.09685).
    """
    @staticmethod
    def load(folder: os.PathLike | str | bytes) -> LoraAdapter:
        """
        Read a folder that :meth:`save` or PEFT wrote.

        Raises
        ------
        ValueError
            If it holds something else than plain LoRA of linear layers; the message names file and key.
        OSError
            If a file cannot be read.
        """
    def __repr__(self) -> str: ...
    def save(self, folder: os.PathLike | str | bytes, base_name: str = "") -> None:
        """
        Write the folder that PEFT loads: `adapter_config.json` and `adapter_model.safetensors`, which also names base and
        template.

        Parameters
        ----------
        folder : path
            Made where it does not exist; other files in it stay.
        base_name : str
            What the configuration calls the base: `base_model_name_or_path`.
        """
    @property
    def alpha(self) -> float:
        """
        Products of factors are scaled by alpha / r.
        """
    @property
    def base(self) -> str:
        """
        :meth:`CausalLM.weights_sha256` of what it was trained on; empty: unknown, and fits any model.
        """
    @base.setter
    def base(self, arg0: str) -> None: ...
    @property
    def dropout(self) -> float:
        """
        Share of inputs that its training dropped.
        """
    @property
    def modules(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """
        Factors `(A, B)` of each layer, `[r, in]` and `[out, r]` float32.
        """
    @property
    def rank(self) -> int:
        """
        Rank r of its factors.
        """
    @property
    def scale(self) -> float:
        """
        What products of factors are multiplied by.
        """
    @property
    def target_modules(self) -> list[str]:
        """
        Last parts of the names of its layers.
        """
    @property
    def template_hash(self) -> str:
        """
        SHA-256 of the chat template of its data; empty: none, or unknown.
        """
    @template_hash.setter
    def template_hash(self, arg0: str) -> None: ...
    @property
    def use_rslora(self) -> bool:
        """
        They are scaled by alpha / sqrt(r) instead.
        """

class FinetuneResult:
    """
    What one fine-tuning run has learned.
    """
    def __repr__(self) -> str: ...
    @property
    def adapter(self) -> LoraAdapter | None:
        """
        What a run of ``lora`` has learned, or None.
        """
    @property
    def message(self) -> str:
        """
        What went wrong, if anything.
        """
    @property
    def model(self) -> CausalLM:
        """
        What a run of ``full`` has learned, or None.
        """
    @property
    def status(self) -> str:
        """
        ``completed``, ``stopped`` by the progress callback, or ``diverged``: then what it had learned before is here.
        """
    @property
    def steps(self) -> list[FinetuneStep]:
        """
        One :class:`FinetuneStep` per step.
        """
    @property
    def trace(self) -> typing.Any:
        """
        One row per step, a ``pandas.DataFrame``.
        """

class Finetuning:
    """
    Results of several runs, and what they cost together.
    """
    @property
    def cost(self) -> Cost:
        """
        Of all runs together.
        """
    @property
    def runs(self) -> list[FinetuneResult]:
        """
        One :class:`FinetuneResult` per run.
        """

def build_info() -> dict:
    """
    What this extension was built as and for.
    """

def finetune(
    model: CausalLM,
    runs: collections.abc.Sequence[tuple[FinetuneOptions, TrainingData]],
    *,
    progress: typing.Any = None,
    checkpoint: os.PathLike | str | bytes | None = None,
    resume: bool = False,
    micro_batch_tokens: typing.SupportsInt = 1024,
    template_hash: str = "",
) -> Finetuning:
    """
    Train runs of options and data; use :func:`titer.training.finetune`.
    """

def folder_file(folder: os.PathLike | str | bytes, name: str) -> pathlib.Path:
    """
    Path of a file of a model folder, if it does not lead out of it.
    """

def generate(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    *,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop: list[str] = [],
    seed: int = 0,
) -> list[Generation]:
    """
    Answers to prompts of token ids; use :func:`titer.generate`.

    Parameters
    ----------
    max_new_tokens : int, default 64
        Most tokens to generate per prompt. Unit: tokens. Must be at least 1.
    min_new_tokens : int, default 0
        Tokens that come before an end-of-sequence token may come, or a stop string counts. Unit: tokens. Must be at least 0.
    temperature : float, default 0.0
        Divides the logits before sampling; 0 takes the most likely token. Must be at least 0.
    top_k : int, default 0
        Samples among that many of the most likely tokens; 0 among all. Unit: tokens. Must be at least 0.
    top_p : float, default 1.0
        Samples among the fewest of the most likely tokens that have this probability together, once the temperature and top_k have changed it; 1 among all. Must be greater than 0 and at most 1.
    stop : list[str], default []
        Texts that end an answer, which is cut before the first of them.
    seed : int, default 0
        Key of the random draws. Must be at least 0.
    """

def merge(base: CausalLM, adapter: LoraAdapter) -> CausalLM:
    """
    The base with an adapter in it; use :func:`titer.training.merge`.
    """

def read_folder_file(folder: os.PathLike | str | bytes, name: str, max_bytes: typing.SupportsInt) -> bytes | None:
    """
    Content of such a file, None if there is none.
    """

def read_folder_json(
    folder: os.PathLike | str | bytes,
    name: str,
    max_bytes: typing.SupportsInt,
    without: collections.abc.Sequence[str] = [],
) -> str | None:
    """
    A JSON object from such a file as text that every parser reads alike, None if there is none.
    """

__version__: str = "0.1.0"
