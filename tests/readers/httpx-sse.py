import json
import sys

import httpx
from httpx_sse import connect_sse

url, *authorization = sys.argv[1:]
headers = {"Authorization": authorization[0]} if authorization else {}

# Without a time limit of its own: httpx gives up after 5 s without a byte.
with httpx.Client(timeout=None) as client, connect_sse(client, "GET", url, headers=headers) as source:
    for event in source.iter_sse():
        print(json.dumps([event.event, event.data]), flush=True)
