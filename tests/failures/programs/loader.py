"""Sends MCP calls from four threads until standard input ends; then prints how often each status came, as JSON (0: no answer)."""

import collections
import http.client
import json
import sys
import threading

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"limit": 1}}})
THREADS = 4
statuses: collections.Counter[int] = collections.Counter()
ending = threading.Event()
counting = threading.Lock()


def call() -> int:
    connection = http.client.HTTPConnection("raw.demo.svc", 80, timeout=10)
    try:
        connection.request("POST", "/mcp", BODY, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return answer.status


def go_on() -> None:
    while not ending.is_set():
        status = call()
        with counting:
            statuses[status] += 1


threads = [threading.Thread(target=go_on) for _ in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdin.read()
ending.set()
for thread in threads:
    thread.join()
sys.stdout.write(json.dumps(statuses) + "\n")
