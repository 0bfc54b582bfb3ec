"""Documents read once and kept aside, for those who need to go through them several times.

Reading may be slow (web pages, archives) or possible only once (standard input), and a file may change or
vanish between two readings. Here the text lies compressed on disk, its hashes in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from pretune.data.sources.text_hash import text_hash
from pretune.text.tokenizer import replace_surrogates
from pretune.types import BoolArray

LEVEL = 1
"""Of zstd: half a gigabyte a second, to a third of the size."""


class TextCache:
    """Documents in a file, in order; memory holds 8 bytes a document.

    Args:
        documents: are read to their end once.
        path: is written; the caller removes it.
    """

    def __init__(self, documents: Iterable[str], path: Path) -> None:
        self.path = path
        hashes = array("Q")
        self.num_characters = 0
        with path.open("wb") as file, zstandard.ZstdCompressor(LEVEL).stream_writer(file) as packed:
            for text in documents:
                packed.write(orjson.dumps(replace_surrogates(text)) + b"\n")
                hashes.append(text_hash(text))
                self.num_characters += len(text)
        self.hashes: npt.NDArray[np.uint64] = np.frombuffer(hashes, np.uint64)
        """(documents,)"""

    def __len__(self) -> int:
        return len(self.hashes)

    def iter_texts(self, mask: BoolArray | None = None) -> Iterator[str]:
        """The documents that are ``mask``, (documents,); all of them where None."""
        with (
            self.path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_size=1 << 20) as packed,
        ):
            for number, line in enumerate(_iter_lines(packed)):
                if mask is None or mask[number]:
                    yield orjson.loads(line)


def _iter_lines(packed: zstandard.ZstdDecompressionReader) -> Iterator[bytes]:
    rest = b""
    while block := packed.read(1 << 22):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest
