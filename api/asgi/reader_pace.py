"""Whether a client reads its responses fast enough: what it does not read, the process keeps in memory."""

import fcntl
import struct
import termios
from contextlib import suppress

from api.asgi.connection_limits import ConnectionLimits
from api.asgi.limited_transport import CountingTransport

_INT = struct.Struct("i")


class ReaderPace:
    """Of one connection."""

    def __init__(self, transport: CountingTransport, limits: ConnectionLimits) -> None:
        self._transport = transport
        self._limits = limits
        self._behind_since: float | None = None
        self._read_bytes = 0  # by the client, until then

    def keeps_up(self, now: float) -> bool:
        """Whether the client has read fast enough. Called now and then."""
        buffered = self._transport.get_write_buffer_size()
        if not buffered:
            self._behind_since = None
            return True
        read = self._transport.written_bytes - buffered - self._in_kernel()
        if self._behind_since is None:
            self._behind_since, self._read_bytes = now, read
            return True
        seconds = now - self._behind_since
        if seconds < self._limits.reader_seconds:
            return True
        keeps_up = read - self._read_bytes >= self._limits.reader_bytes_per_second_min * seconds
        self._behind_since, self._read_bytes = now, read
        return keeps_up

    def _in_kernel(self) -> int:
        """Bytes that the kernel has not sent, or whose receipt the client has not confirmed.

        It takes bytes from the process in steps of a megabyte, if they are read slowly: those alone look like a halt.
        """
        with suppress(OSError, AttributeError):
            answer = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_INT.size))
            return int(_INT.unpack(answer)[0])
        return 0
