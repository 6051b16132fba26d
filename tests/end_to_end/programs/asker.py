"""Sends one MCP call for each line of standard input and prints its status, or 0 when there was no answer."""

import http.client
import json
import sys

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"limit": 1}}})
for _ in sys.stdin:
    connection = http.client.HTTPConnection("raw.demo.svc", 80, timeout=10)
    try:
        connection.request("POST", "/mcp", BODY, {"content-type": "application/json"})
        print(connection.getresponse().status, flush=True)
    except (OSError, http.client.HTTPException) as error:
        print(repr(error), file=sys.stderr, flush=True)
        print(0, flush=True)
    finally:
        connection.close()
