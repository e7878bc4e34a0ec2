"""Runs the jobs of a client's program: see README.md."""

import asyncio
import inspect
import json
import sys
import threading


def told(error):
    """An error as OpenAI's clients have it."""
    said = {"name": type(error).__name__, "message": str(error), "status": getattr(error, "status_code", None)}
    return said | {name: getattr(error, name, None) for name in ("code", "type", "param")}


def run(modes, describe=told):
    # One loop for all, as in a program: LangChain keeps its connections for the next call.
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    for line in sys.stdin:
        threading.Thread(target=work, args=(modes, json.loads(line), describe, loop)).start()


def work(modes, job, describe, loop):
    end = {}
    try:
        ended = modes[job["mode"]](job, lambda text: show({"job": job["job"], "text": text}), end)
        if inspect.iscoroutine(ended):
            asyncio.run_coroutine_threadsafe(ended, loop).result()
    except BaseException as error:
        end["error"] = describe(error)
    show({"job": job["job"], "end": end})


printing = threading.Lock()


def show(line):
    with printing:
        print(json.dumps(line), flush=True)
