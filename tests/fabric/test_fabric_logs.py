"""What each line of a service's log tells besides its text, for people and for programs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fabric_broker import PATIENCE, Broker, MakeFile, StartService

from txstore.dxl import FileSender, Link, RemoteError
from txstore.dxl.logs import JsonFormatter, Logs, TextFormatter, about_request

KEYS = [
    *("time", "level", "logger", "process", "worker", "broker", "client", "transfer"),
    *("message", "error"),
]


def test_lines_of_all_workers_are_json_with_the_same_keys(
    broker: Broker, shared_dir: Path, link: Link, make_file: MakeFile, start_service: StartService
) -> None:
    service = start_service(shared_dir, "--workers", "2", "--log-format", "json")
    path = make_file(10)
    sent = FileSender(link).send(path)
    with pytest.raises(RemoteError):
        FileSender(link).send(path, "../outside")
    assert service.terminate() == 0
    lines = [json.loads(line) for line in service.output if not line.startswith("txstore: ready")]
    assert all(list(line) == KEYS for line in lines)
    found: dict[str, Any] = {line["message"].split()[0]: line for line in lines}
    for line in (found["Stored"], found["Refused:"]):
        assert line["worker"] in (1, 2)
        assert line["broker"] == f"127.0.0.1:{broker.port}"
        assert line["client"] == link._config._client_id
    assert found["Stored"]["transfer"] == sent.file_id
    assert found["Refused:"]["transfer"] not in (None, sent.file_id)
    assert (found["Serving"]["client"], found["Serving"]["transfer"]) == (None, None)
    assert found["Serving"]["broker"] == f"127.0.0.1:{broker.port}"
    assert found["Worker"]["worker"] is None, "the supervisor is none"


class Request:
    """A request as the fabric's library has it."""

    def __init__(self, client: object, fields: object, reply_to: str = "") -> None:
        self.source_client_id, self.other_fields, self.reply_to_topic = client, fields, reply_to


def line(formatter: logging.Formatter, request: Request, error: bool = False) -> str:
    """What is logged while a request is answered."""
    info = None
    if error:
        try:
            raise RuntimeError("why")
        except RuntimeError:
            info = sys.exc_info()
    with about_request("broker:8883", request):
        record = Logs(7)._record("name", logging.INFO, "file", 1, "%s", ("text",), info)
    return formatter.format(record)


def test_a_line_for_people_ends_with_what_is_known() -> None:
    shown = line(TextFormatter(), Request("{client}", {"file_id": "one"}))
    end = " name INFO text [worker=7 broker=broker:8883 client={client} transfer=one]"
    assert shown.endswith(end)
    assert line(TextFormatter(), Request(None, None)).endswith("text [worker=7 broker=broker:8883]")
    shown = line(TextFormatter(), Request("", {"file_id": 5}, "/mcafee/client/{other}"))
    assert shown.endswith("[worker=7 broker=broker:8883 client={other}]")


@pytest.mark.parametrize("forged", ["a\nb", "a] [client=b", "a b", "\x1b[2J", 'a"', "é", "a=b"])
def test_what_a_sender_chooses_is_taken_for_nothing_else(forged: str) -> None:
    shown = line(TextFormatter(), Request("client", {"file_id": forged}))
    assert shown.endswith(f" transfer={json.dumps(forged)}]")
    assert "\n" not in shown


def test_an_error_is_told_with_its_traceback() -> None:
    people = line(TextFormatter(), Request("client", {}), error=True).splitlines()
    assert people[0].endswith("text [worker=7 broker=broker:8883 client=client]")
    assert people[-1] == "RuntimeError: why"
    program = json.loads(line(JsonFormatter(), Request("client", {}), error=True))
    assert program["message"] == "text"
    assert program["error"].splitlines()[-1] == "RuntimeError: why"


LOGGING = """
[loggers]
keys=root
[handlers]
keys=file,plain
[formatters]
keys=json,own
[logger_root]
level=INFO
handlers=file,plain
[handler_file]
class=FileHandler
formatter=json
args=("json", "a")
[handler_plain]
class=FileHandler
formatter=own
args=("own", "a")
[formatter_json]
class=txstore.dxl.logs.JsonFormatter
[formatter_own]
format=%(worker)s %(transfer)s %(message)s
"""


def test_a_configuration_of_logging_can_use_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "logging.config").write_text(LOGGING)
    code = (
        "import logging; from txstore.dxl import ServiceConfig; from txstore.dxl.logs import Logs;"
        "Logs(3).open(ServiceConfig('.', 'storage')); logging.warning('text')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
    told = json.loads((tmp_path / "json").read_text())
    assert (list(told), told["worker"], told["message"]) == (KEYS, 3, "text")
    assert (tmp_path / "own").read_text() == "3 None text\n"
