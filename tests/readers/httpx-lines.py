import json
import sys

import httpx

url, *authorization = sys.argv[1:]
headers = {"Accept": "text/event-stream", **({"Authorization": authorization[0]} if authorization else {})}
event = "message"

# Without a time limit of its own: httpx gives up after 5 s without a byte.
with httpx.stream("GET", url, headers=headers, timeout=None) as response:
    for line in response.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        if line.startswith("data: "):
            print(json.dumps([event, line.removeprefix("data: ")]), flush=True)
            event = "message"
