import json
import sys

import requests
from sseclient import SSEClient

url, *authorization = sys.argv[1:]
headers = {"Accept": "text/event-stream", **({"Authorization": authorization[0]} if authorization else {})}

for event in SSEClient(requests.get(url, headers=headers, stream=True)).events():
    print(json.dumps([event.event, event.data]), flush=True)
