"""Protobuf descriptors read out of an installed Go binary, so that schema and binary cannot disagree (decision 27).

Go programs carry each `.proto` they were built with as a gzip'd FileDescriptorProto. Cost: one scan of the
mapped file (0.1 s for 50 MB, no copy of it).
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

from pervade.base.errors import OperatorError

_GZIP = re.compile(rb"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff")
_MOST = 1 << 18


def descriptors(program: Path, packages: frozenset[str]) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """File descriptors of the named proto packages in `program`, by package; options are dropped.

    Raises OperatorError when the program or one of the packages is not there.
    """
    try:
        found = {f.package: f for f in _scan(program) if f.package in packages}
    except OSError as error:
        raise OperatorError(f"cannot read {program}: {error}", fix="apt-get install containerd") from error
    if missing := packages - found.keys():
        raise OperatorError(
            f"no description of {', '.join(sorted(missing))} inside",
            where=str(program),
            cause="another version than expected",
        )
    return found


def _scan(program: Path) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _GZIP.finditer(data):
            try:
                raw = zlib.decompressobj(31).decompress(data[match.start() : match.start() + _MOST])
                yield _bare(descriptor_pb2.FileDescriptorProto.FromString(raw))
            except (zlib.error, ValueError, descriptor_pb2.message.DecodeError):  # type: ignore[attr-defined]
                continue


def _bare(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Without imports and options, which name extensions that are not here."""

    def strip(message: descriptor_pb2.DescriptorProto) -> None:
        map_entry = message.options.map_entry
        message.ClearField("options")
        if map_entry:
            message.options.map_entry = True
        for field in message.field:
            field.ClearField("options")
        for nested in message.nested_type:
            strip(nested)

    for message in file.message_type:
        strip(message)
    file.ClearField("options")
    for enum in file.enum_type:
        enum.ClearField("options")
        for value in enum.value:
            value.ClearField("options")
    return file
