"""supervisord in this process."""

import signal
from pathlib import Path
from types import FrameType

from supervisor import events
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

LOOK_SECONDS = 0.1
_TAIL_BYTES = 4096


class _Options(ServerOptions):
    """A terminal that is closed ends everything, as Ctrl-C does; supervisord alone would start it all anew."""

    def setsignals(self) -> None:
        super().setsignals()

        def hang_up(_: int, frame: FrameType | None) -> None:
            self.signal_receiver.receive(signal.SIGTERM, frame)

        signal.signal(signal.SIGHUP, hang_up)


class _Supervisor(Supervisor):
    """Ends everything where a program fails before all were ready, or fails for good later.

    What does not come up at first, as with weights that cannot be loaded, would not at the tenth time.
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
        # supervisord looks once a second for signals and for what has ended: seconds, where one stops after another.
        poller = self.options.poller
        poll = poller.poll
        poller.poll = lambda timeout: poll(min(timeout, LOOK_SECONDS))
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
            return  # the end of one brings that of others
        name = event.process.config.name
        output = self._tails.get(name, b"").decode(errors="replace").strip()
        self.failure = output.rpartition("\n")[2] or f"darkroom: {name} cannot be started"
        self.options.mood = SupervisorStates.SHUTDOWN


def supervise(config: Path, *, last: str) -> str:
    """Run what the configuration names, and return once all of it has ended.

    The program `last` ends with 0 once the others are ready. Returns "" where a signal asked for the end, else the
    last line of the program that failed.
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
