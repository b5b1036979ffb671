"""A JDBC client in a process of its own: `python jdbc_client.py URL USER PASSWORD_FILE`, requests on stdin.

A request is a statement; the name of a call of `java.sql.DatabaseMetaData` with its arguments; or `until`,
a statement and a text that its answer will have. The answers are a JSON list: rows as objects by column
label, or the message of the error.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyspark

from orchestration.environment.java import require_java
from orchestration.services.jdbc import JDBC_USER, jdbc_password_file

Request = str | list[Any]
Answer = list[dict[str, Any]] | str

JARS = Path(pyspark.__path__[0]) / "jars"


def jdbc(port: int, home: Path, requests: list[Request], database: str = "") -> list[Answer]:
    """The answers of hive-jdbc, through JayDeBeApi, to requests of one session."""
    url = f"jdbc:hive2://127.0.0.1:{port}/{database}"
    done = subprocess.run(
        [sys.executable, __file__, url, JDBC_USER, str(jdbc_password_file(home))],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Answer] = json.loads(done.stdout.splitlines()[-1])
    return answers


def beeline(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Hive's own client answers."""
    command = [
        str(require_java().program), "-cp", f"{JARS}/*", "org.apache.hive.beeline.BeeLine",
        "-u", f"jdbc:hive2://127.0.0.1:{port}/", "--silent=true", "--force=true", "--outputformat=csv2",
        "--showHeader=false", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _serve(url: str, user: str, password_file: str) -> None:
    import jaydebeapi
    import jpype

    password = Path(password_file).read_text().strip()
    jars = [str(jar) for jar in JARS.glob("*.jar")]
    connection = jaydebeapi.connect("org.apache.hive.jdbc.HiveDriver", url, [user, password], jars)
    metadata = connection.jconn.getMetaData()

    def rows(found: Any) -> list[dict[str, Any]]:
        about = found.getMetaData()
        columns = range(1, about.getColumnCount() + 1)
        answer = []
        while found.next():
            answer.append({str(about.getColumnLabel(at)): _plain(found.getObject(at)) for at in columns})
        return answer

    def answer(request: Request) -> Answer:
        statement = connection.jconn.createStatement()
        try:
            if isinstance(request, str):
                return rows(statement.getResultSet()) if statement.execute(request) else []
            name, *arguments = request
            if name == "until":
                return until(*arguments)
            given = [
                jpype.JArray(jpype.JString)(each) if isinstance(each, list) else each for each in arguments
            ]
            found = getattr(metadata, name)(*given)
            return rows(found) if hasattr(found, "getMetaData") else [{"": _plain(found)}]
        except jpype.JException as error:
            return str(error.getMessage())
        finally:
            statement.close()

    def until(statement: str, text: str) -> Answer:
        """Sends a statement again until its answer has a text, for a minute."""
        deadline_s = time.monotonic() + 60
        while True:
            found = answer(statement)
            if text in str(found) or time.monotonic() > deadline_s:
                return found
            time.sleep(0.5)

    print(json.dumps([answer(request) for request in json.load(sys.stdin)]))


def _plain(value: Any) -> Any:
    return None if value is None else str(value)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
