from jobs import run
from langchain_openai import ChatOpenAI


def connect(job):
    request = job["request"]
    settings = {"max_retries": job["retries"]} if "retries" in job else {}
    if "temperature" in request:
        settings["temperature"] = request["temperature"]
    return ChatOpenAI(
        model=request["model"],
        base_url=job["url"],
        api_key=job["key"],
        default_headers=job.get("headers"),
        stream_usage="stream_options" in request,
        **settings,
    )


def note(message, end):
    end |= {"id": message.id or end.get("id")}
    if message.usage_metadata:
        end["usage"] = message.usage_metadata
    for key, name in (("finish_reason", "finish"), ("model_name", "model"), ("id", "id")):
        if message.response_metadata.get(key):
            end[name] = message.response_metadata[key]


def stream(job, say, end):
    for chunk in connect(job).stream(job["request"]["messages"]):
        note(chunk, end)
        if chunk.text:
            say(chunk.text)
            if job.get("leave"):
                break


async def astream(job, say, end):
    async for chunk in connect(job).astream(job["request"]["messages"]):
        note(chunk, end)
        if chunk.text:
            say(chunk.text)
            if job.get("leave"):
                break


def whole(job, say, end):
    message = connect(job).invoke(job["request"]["messages"])
    note(message, end)
    say(message.text)


run({"stream": stream, "astream": astream, "whole": whole})
