"""Commands and replies of a connection to Redis."""

from typing import Any, cast

import hiredis

Command = tuple[bytes | str | int, ...]


Reply = Any  # as hiredis parses it: bytes, int, None, list, or hiredis.ReplyError as a value


def pack(command: Command | bytes) -> bytes:
    """The command in the Redis protocol; bytes are a command that was packed before."""
    return command if isinstance(command, bytes) else _pack(command)


_pack = cast("Any", hiredis.pack_command)  # its type stubs do not allow bytes
