"""The table of faults and their outcomes, to which every fault test adds a row."""

import os
from pathlib import Path

HEAD = """\
# Faults

Each row is one fault. The runs *killed in turn* ran one after another on one folder, in the order of \
their numbers: each continued from what the one before it left, and a run that nothing disturbs came last. \
Each of these rows therefore states the outcome of all of them together. (For the index, the killed \
command is `headwater run --select 'key:"serving/index"+'`.) Every other row started from its own fresh \
copy of a state folder.

*Equal* means that the folder ends row for row like one that was never disturbed (every table, the index, \
its partitions, the decisions, the live release, a search), that no two commits of a table have the same \
fencing token, and that no process that was started for the folder still runs.

*Inside* a commit, the new files of the table are written and the commit is not; inside a statement, it is \
sent and not answered; inside a piece of a COPY, half of it is written.

Made by `make fault`.

| run | fault | at | outcome |
|---|---|---|---|
"""


class Report:
    """The table, in the file that HEADWATER_FAULT_REPORT names; without the variable, it is only printed.

    With HEADWATER_FAULT_RESUME, earlier rows stay, and faults whose outcome was equal need not be made again.
    """

    def __init__(self) -> None:
        name = os.environ.get("HEADWATER_FAULT_REPORT")
        self._path = Path(name) if name else None
        self._rows: dict[tuple[str, str, str], str] = {}
        if self._path and self._path.exists() and os.environ.get("HEADWATER_FAULT_RESUME"):
            for line in self._path.read_text().splitlines():
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                if len(cells) == 4 and cells[0] not in ("run", "---"):
                    self._rows[cells[0], cells[1], cells[2]] = cells[3]

    def knows(self, run: str, fault: str, at: str) -> bool:
        """Whether the outcome of a fault was equal before."""
        return self._rows.get((run, fault, at), "").startswith("equal")

    def add(self, run: str, fault: str, at: str, wrong: list[str], remark: str = "") -> None:
        """Adds the outcome of a fault: equal, or the names of what differs."""
        outcome = f"differs: {', '.join(wrong)}" if wrong else "equal"
        said = f"{outcome}; {remark}" if remark else outcome
        self._rows[run, fault, at] = said.replace("|", " ").replace("\n", " ")
        print(run, fault, at, said, sep=" | ", flush=True)
        if self._path:
            rows = "".join(f"| {' | '.join(key)} | {said} |\n" for key, said in self._rows.items())
            self._path.write_text(HEAD + rows + f"\n{len(self._rows)} faults.\n")
