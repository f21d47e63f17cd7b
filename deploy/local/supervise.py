"""supervisord in this process."""

import signal
from pathlib import Path
from types import FrameType

from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor


class _Options(ServerOptions):
    """A terminal that is closed ends everything, as Ctrl-C does; supervisord alone would start it all anew."""

    def setsignals(self) -> None:
        super().setsignals()

        def hang_up(_: int, frame: FrameType | None) -> None:
            self.signal_receiver.receive(signal.SIGTERM, frame)

        signal.signal(signal.SIGHUP, hang_up)


def supervise(config: Path) -> None:
    """Run what the configuration names until told to stop, and return once all of it has ended."""
    options = _Options()
    options.realize(["-n", "-c", str(config)])
    options.first, options.test = True, False
    try:
        Supervisor(options).main()
    except asyncore.ExitNow:
        options.close_logger()
