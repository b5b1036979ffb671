"""The supervisor of a state folder's services, which its keeper starts.

It starts a service again whose process has ended, or runs and does not answer, unless that happens again and
again, and writes down what it saw for `headwater status`. A service that has a pid file is meant to run:
`headwater up` writes them, `headwater down` stops keeper and supervisor and then removes them.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.atomic_files import PRIVATE_UMASK, atomic_file
from orchestration.services.dagster_home import DaemonBeats
from orchestration.services.processes import (
    read_pid_file,
    running_process,
    start_process,
    stop_process_group,
    write_pid_file,
)
from orchestration.services.supervision import keeper
from orchestration.services.supervision.definitions import DefinitionFiles
from orchestration.services.supervision.liveness import MOST_UNANSWERED, Liveness
from orchestration.services.supervision.questions import postgres_answers
from orchestration.services.supervision.restart_budget import (
    HANGS_WINDOW_S,
    MOST_RESTARTS,
    WINDOW_S,
    RestartBudget,
)
from orchestration.services.supervision.service_definitions import (
    CODE,
    POSTGRES,
    SUPERVISOR,
    Service,
    SupervisorReport,
    service_definitions,
    service_environment,
    service_log,
    service_pid_file,
    supervisor_report_file,
)
from retrieval.store.postgres import Postgres

if TYPE_CHECKING:
    from orchestration.settings import Settings

logger = logging.getLogger(__name__)

_LOOK_S = 0.25
_GRACE_S = 0.5
_BEATS_S = 5.0
_REPORT_S = 10.0


class Supervisor:
    """Starts services of a state folder again.

    Args:
        settings: The settings of the state folder.
    """

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._services = service_definitions(settings)
        self._server = Postgres(settings.home, settings.postgres).server
        self._liveness = {each.name: Liveness(each.answers, each.timeout_s) for each in self._services}
        if self._server is not None:
            starts_s = float(self._server.config.start_timeout_s)
            self._liveness[POSTGRES] = Liveness(self._postgres_answers, starts_s)
        self._budgets = {name: RestartBudget() for name in self._liveness}
        self._hangs = {name: RestartBudget(HANGS_WINDOW_S) for name in self._liveness}
        self._given_up: dict[str, str] = {}
        self._definitions = DefinitionFiles(settings)
        self._faults: dict[str, str] = {}
        self._beats: DaemonBeats | None = None
        self._daemon_beats = True
        self._beats_read_s = self._reported_s = time.monotonic()
        self._reported: SupervisorReport | None = None

    def run(self, stop: threading.Event) -> None:
        """Looks after the services until it is told to stop, or its keeper is gone."""
        # The services use the database, so it does not stop itself while they run.
        with self._server.used() if self._server else contextlib.nullcontext():
            while not stop.is_set() and _keeper_lives():
                self.look()
                stop.wait(_LOOK_S)

    def look(self) -> None:
        """Looks at each service once, and starts those again that ended; whatever fails is tried again."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # children that ended stay in the table until asked for
                pass
        for service in self._services:
            with self._surviving(service.name):
                self._look_at(service)
        with self._surviving(POSTGRES):
            self._look_at_postgres()
        with self._surviving("the daemon's heartbeats"):
            self._read_beats()
        with self._surviving("the report"):
            self._report()

    @contextlib.contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Logs what the look at one service raises, once, and goes on: the others are looked after."""
        try:
            yield
        except Exception as error:
            if self._faults.get(what) != (fault := str(error)):
                logger.exception("looking after %s failed; trying again", what)
            self._faults[what] = fault
        else:
            self._faults.pop(what, None)

    def _look_at(self, service: Service) -> None:
        started = read_pid_file(service_pid_file(self._settings, service.name))
        if started is None:
            return
        if running_process(started) is not None:
            if self._hangs_too_long(service.name, started.pid):
                self._end(service)
            elif service.name == CODE and self._definitions.outdated(time.monotonic()):
                logger.warning("what the definitions are made from has changed: %s is started again", CODE)
                self._definitions.load()
                self._restart(service)
        elif self._may_restart(service.name):
            self._restart(service)

    def _look_at_postgres(self) -> None:
        if self._server is None:
            return
        server = self._server.pid()
        if server is not None and self._hangs_too_long(POSTGRES, server):
            os.kill(server, signal.SIGKILL)  # what is stopped ends by no other signal
        elif not self._server.running() and self._may_restart(POSTGRES):
            self._server.start()

    def _hangs_too_long(self, name: str, pid: int) -> bool:
        """Returns whether a process is to be ended, because it has not answered for long."""
        budget, now_s = self._hangs[name], time.monotonic()
        if not self._liveness[name].hangs(pid, now_s):
            return False
        logger.warning("%s left %d questions in a row unanswered: it is ended", name, MOST_UNANSWERED)
        if budget.spent(now_s):
            self._give_up(name, f"did not answer {MOST_RESTARTS + 1} times within {HANGS_WINDOW_S:g} s")
        else:
            budget.take(now_s)
        return True

    def _may_restart(self, name: str) -> bool:
        budget, now_s = self._budgets[name], time.monotonic()
        if name in self._given_up:
            return False
        if budget.due(now_s):
            if name == "daemon":  # first: while Dagster's storage can not be read, a daemon could do nothing
                self._beats, self._daemon_beats = DaemonBeats(self._settings.dagster_home), False
            budget.take(now_s)
            logger.warning("%s ended: it is started again", name)
            self._report()  # before it is there, so that nobody takes it for the one before
            return True
        if budget.spent(now_s):
            self._give_up(name, f"ended {MOST_RESTARTS + 1} times within {WINDOW_S:g} s")
        return False

    def _give_up(self, name: str, why: str) -> None:
        self._given_up[name] = why
        logger.error("%s %s: it is given up", name, why)

    def _end(self, service: Service) -> None:
        """Ends the processes of a service, also those that a killed leader left behind with its port."""
        # The pid file stays: it says what is meant to run.
        stop_process_group(service_pid_file(self._settings, service.name), _GRACE_S, keep_file=True)

    def _restart(self, service: Service) -> None:
        self._end(service)
        pid_file = service_pid_file(self._settings, service.name)
        environment = service_environment(self._settings)
        start_process(service.command, pid_file, service_log(self._settings, service.name), environment)

    def _read_beats(self) -> None:
        now_s = time.monotonic()
        if now_s - self._beats_read_s >= (_BEATS_S if self._daemon_beats else 2 * _LOOK_S):
            self._beats_read_s = now_s
            self._beats = self._beats or DaemonBeats(self._settings.dagster_home, works=True)
            self._daemon_beats = self._beats.beating()

    def _report(self) -> None:
        now_s = time.monotonic()
        report = SupervisorReport(
            pid=os.getpgrp(),
            looked_s=now_s,
            daemon_beats=self._daemon_beats,
            restarts={name: budget.total for name, budget in self._budgets.items() if budget.total},
            given_up=self._given_up,
            hangs={name: budget.total for name, budget in self._hangs.items() if budget.total},
            unanswered={name: each.unanswered for name, each in self._liveness.items() if each.unanswered},
        )
        news = self._reported is None or report != self._reported.model_copy(update={"looked_s": now_s})
        if news or now_s - self._reported_s >= _REPORT_S:
            with atomic_file(supervisor_report_file(self._settings)) as fresh:
                fresh.write_text(report.model_dump_json())
            self._reported, self._reported_s = report.model_copy(deep=True), now_s

    def _postgres_answers(self, timeout_s: float) -> bool:
        address = self._server.socket if self._server else None
        return address is None or postgres_answers(address, timeout_s)


def _keeper_lives() -> bool:
    """Returns whether its parent is its keeper, which leads the process group."""
    return os.getppid() == os.getpgrp()


def main() -> None:
    """Looks after the services of the state folder that the environment names, until SIGTERM."""
    from orchestration.settings import Settings

    os.umask(PRIVATE_UMASK)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING, stream=sys.stderr)
    stop = threading.Event()
    # What was begun is finished: a process without its pid file would be nobody's.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = Settings()
    Supervisor(settings).run(stop)
    if not stop.is_set():  # the keeper was killed
        os.setsid()
        write_pid_file(service_pid_file(settings, SUPERVISOR), os.getpid())
        os.execv(keeper.COMMAND[0], keeper.COMMAND)  # noqa: S606 - there is nothing for a shell to do


if __name__ == "__main__":
    main()
