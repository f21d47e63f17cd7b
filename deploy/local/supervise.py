"""Runs supervisord in this process."""

import signal
from pathlib import Path
from types import FrameType

from supervisor import events
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

POLL_SECONDS = 0.1
_TAIL_BYTES = 4096


class _Options(ServerOptions):
    """Stop everything if the terminal is closed, as Ctrl-C does; by default supervisord would restart everything."""

    def setsignals(self) -> None:
        super().setsignals()

        def hang_up(_: int, frame: FrameType | None) -> None:
            self.signal_receiver.receive(signal.SIGTERM, frame)

        signal.signal(signal.SIGHUP, hang_up)


class _Supervisor(Supervisor):
    """Stops everything if a program fails before all were ready, or cannot be restarted later.

    A program that fails at its first start, for example because its weights cannot be loaded, would fail at the tenth.
    """

    def __init__(self, options: _Options, last: str) -> None:
        super().__init__(options)
        self.failure = ""
        self._last = last
        self._ready = False
        self._tails = dict[str, bytes]()

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogStdoutEvent, self._keep_tail)
        events.subscribe(events.ProcessStateExitedEvent, self._exited)
        events.subscribe(events.ProcessStateBackoffEvent, self._exited)
        events.subscribe(events.ProcessStateFatalEvent, self._fail)
        # supervisord polls for signals and exited programs once a second; stopping all programs would take seconds.
        poller = self.options.poller
        poll = poller.poll
        poller.poll = lambda timeout: poll(min(timeout, POLL_SECONDS))
        super().runforever()

    def _keep_tail(self, event: events.ProcessLogStdoutEvent) -> None:
        name = event.process.config.name
        self._tails[name] = (self._tails.get(name, b"") + event.data)[-_TAIL_BYTES:]

    def _exited(self, event: events.ProcessStateEvent) -> None:
        clean = isinstance(event, events.ProcessStateExitedEvent) and event.expected
        if clean and event.process.config.name == self._last:
            self._ready = True
        elif not clean and not self._ready:
            self._fail(event)

    def _fail(self, event: events.ProcessStateEvent) -> None:
        if self.options.mood < SupervisorStates.RUNNING:
            return  # stopping already: programs are expected to exit
        name = event.process.config.name
        output = self._tails.get(name, b"").decode(errors="replace").strip()
        self.failure = output.rpartition("\n")[2] or f"darkroom: {name} cannot be started"
        self.options.mood = SupervisorStates.SHUTDOWN


def supervise(config: Path, *, last: str) -> str:
    """Run the programs of the configuration, and return once all of them have ended.

    The program `last` exits with 0 once the others are ready. Returns "" if a signal stopped everything, else the last
    line of output of the program that failed.
    """
    options = _Options()
    options.realize(["-n", "-c", str(config)])
    options.first, options.test = True, False
    supervisor = _Supervisor(options, last)
    try:
        supervisor.main()
    except asyncore.ExitNow:
        options.close_logger()
    return supervisor.failure
