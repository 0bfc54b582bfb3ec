"""What will be read is known beforehand, however it was named."""

from __future__ import annotations

import gzip
from pathlib import Path

from pretune.data.sources.records import RecordLog, list_files, read_records


def test_patterns_folders_and_packed_files_are_listed_as_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("one")
    (tmp_path / "a" / "left.out").write_text("x")
    (tmp_path / "two.jsonl").write_text('{"text": "two"}\n')
    with gzip.open(tmp_path / "three.jsonl.gz", "wt") as file:
        file.write('{"text": "three"}\n')
    sources = [tmp_path / "a", f"{tmp_path}/*.jsonl*"]
    log = RecordLog()
    read = [record.path for record in read_records(sources, log=log)]
    found = list_files(sources)
    assert [name for name, _, _ in found] == read
    assert sum(size for _, size, _ in found) == log.bytes_total == log.bytes_read
