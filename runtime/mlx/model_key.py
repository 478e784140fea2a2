"""What a model computes with, as one key: equal keys, interchangeable KV caches."""

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import msgspec

from runtime.engine.host import Beat
from runtime.mlx import device, kv_header, scratch

CONTENT = ("config.json", "*.safetensors", "*.py")
"""The files that decide what a model directory computes; Python files are architectures that come with the weights."""

MEMO = "models.json"
CHUNK_BYTES = 8 << 20


class _Digest(msgspec.Struct, frozen=True):
    """Of a file's content, as long as the file looks the same."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """Also of the last change of name, or of mtime itself: a file put in another's place has its own."""
    sha256: str


Memo = dict[str, _Digest]
"""By the file's path, all links followed."""


def model_key(
    model: Path,
    *,
    cache_dir: Path,
    dtype: str,
    kv_bits: int | None,
    chunk_tokens: int = 0,
    invariant: bool = False,
    beat: Beat,
) -> str:
    """32 hexadecimal digits that change with the content of the directory `model`, with the type that it computes in,
    with the form of its KV caches, and with what computes them. Fixed chunks (see LoadModel) have keys of their own:
    what was computed in others is the same but for the last bits, and those are promised.

    Weights are read once: `cache_dir` keeps their digests, under the name `models.json`. Raises OSError if a file of
    the model cannot be read.
    """
    known = _remembered(cache_dir / MEMO)
    files = {path.name: path.resolve() for pattern in CONTENT for path in sorted(model.glob(pattern))}
    digests = {str(path): _digest(path, known, beat) for path in files.values()}
    if not digests.items() <= known.items():
        _remember(cache_dir / MEMO, known | digests)
    computed = {
        "content": {name: digests[str(path)].sha256 for name, path in files.items()},
        "dtype": dtype,
        "kv_bits": kv_bits,
        "device": device.name(),
        "versions": versions(),
        "format": kv_header.FORMAT,
    }
    if chunk_tokens or invariant:
        computed |= {"chunk_tokens": chunk_tokens, "invariant": invariant}
    return sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:32]


def versions() -> Mapping[str, str]:
    """Of the libraries that compute KV caches."""
    return {name: version(name) for name in ("mlx", "mlx-lm")}


def _digest(path: Path, known: Memo, beat: Beat) -> _Digest:
    stat = path.stat()
    before = known.get(str(path))
    if before and (before.size, before.mtime_ns, before.ctime_ns) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns):
        return before
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            beat("reading the weights for the cache")
    return _Digest(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest.hexdigest())


def _remembered(path: Path) -> Memo:
    """Nothing if the memo is missing or damaged: then all is read again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Memo)
    except (OSError, msgspec.MsgspecError):
        return {}


def _remember(path: Path, memo: Memo) -> None:
    """Keep what is known of files that are still there. Where that fails, they are read again next time."""
    there = {name: digest for name, digest in memo.items() if Path(name).exists()}
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with scratch.replacing(path) as new:
            new.touch(mode=0o600)
            new.write_bytes(msgspec.json.encode(there))
