import json
import sys

from requests_sse import EventSource, InvalidStatusCodeError

url, *authorization = sys.argv[1:]
headers = {"Authorization": authorization[0]} if authorization else {}

try:
    with EventSource(url, headers=headers) as source:
        for event in source:
            print(json.dumps([event.type, event.data]), flush=True)
except InvalidStatusCodeError as error:
    # It reconnects behind the end, where there is nothing more.
    if error.status_code != 204:
        raise
