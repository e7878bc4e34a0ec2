import json
import sys

import requests

url, *authorization = sys.argv[1:]
headers = {"Accept": "text/event-stream", **({"Authorization": authorization[0]} if authorization else {})}
event = "message"

with requests.get(url, headers=headers, stream=True) as response:
    for line in response.iter_lines(decode_unicode=True):
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        if line.startswith("data: "):
            print(json.dumps([event, line.removeprefix("data: ")]), flush=True)
            event = "message"
