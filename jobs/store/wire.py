"""Commands and replies as they go over a connection to Redis."""

from typing import Any, cast

import hiredis

Command = tuple[bytes | str | int, ...]


Reply = Any  # what hiredis reads: bytes, int, None, list, or hiredis.ReplyError as a value


def pack(command: Command | bytes) -> bytes:
    """A command as it goes over the wire; bytes are one that was packed before."""
    return command if isinstance(command, bytes) else _pack(command)


_pack = cast("Any", hiredis.pack_command)  # its types know no bytes
