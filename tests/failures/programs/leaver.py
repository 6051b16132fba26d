"""Tries every way out for each line of standard input: the upstream's real PORT, an outside address, the name, the name's address, a
connection that was opened at the start. Prints way → whether something answered, as JSON.

Started as `leaver.py PORT`.
"""

import http.client
import json
import socket
import sys

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"limit": 1}}})
NAME = "raw.demo.svc"
address = socket.gethostbyname(NAME)
kept = http.client.HTTPConnection(NAME, 80, timeout=5)


def answered(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("POST", "/mcp", BODY, {"host": NAME, "content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return False
    return answer.status == 200


def resolved(name: str) -> bool:
    try:
        socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return True


kept.connect()
kept.auto_open = 0  # once it is gone, it stays gone
for _ in sys.stdin:
    outcomes = {
        "upstream": answered(http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)),
        "outside": answered(http.client.HTTPConnection("203.0.113.7", 80, timeout=1)),
        "resolver": resolved(NAME),
        "address": answered(http.client.HTTPConnection(address, 80, timeout=5)),
        "kept": answered(kept),
    }
    sys.stdout.write(json.dumps(outcomes) + "\n")
    sys.stdout.flush()
