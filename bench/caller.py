"""Runs inside the sandbox and outside: MCP calls on one warm connection at a fixed rate; prints the latencies in ms as JSON.

Started as `python caller.py HOST PORT HOST_HEADER RATE SECONDS`.
"""

import http.client
import json
import sys
import time

host, port, named, rate, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5])
body = json.dumps(
    {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search", "arguments": {"limit": 5, "text": "x" * 480}}}
)
headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", "host": named}
connection = http.client.HTTPConnection(host, port, timeout=10)


def call() -> float:
    started = time.perf_counter()
    connection.request("POST", "/mcp", body, headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}")
    return (time.perf_counter() - started) * 1000


for _ in range(100):
    call()
latencies, start = [], time.perf_counter()
for number in range(int(rate * seconds)):
    time.sleep(max(0.0, start + number / rate - time.perf_counter()))
    latencies.append(call())
print(json.dumps(latencies))
