from jobs import run
from openai import OpenAI
from openai_common import connect, note, read


def stream(job, say, end):
    # A `break` without the `with` leaves the connection open, until the garbage collector comes by.
    with connect(job, OpenAI).chat.completions.create(**job["request"], stream=True) as stream:
        for chunk in stream:
            text = read(chunk, end)
            if text:
                say(text)
                if job.get("leave"):
                    break


def helper(job, say, end):
    with connect(job, OpenAI).chat.completions.stream(**job["request"]) as stream:
        for event in stream:
            if event.type == "chunk":
                end["id"] = event.chunk.id
            if event.type == "content.delta" and event.delta:
                say(event.delta)
                if job.get("leave"):
                    return
        note(stream.get_final_completion(), end)


def whole(job, say, end):
    completion = connect(job, OpenAI).chat.completions.create(**job["request"])
    note(completion, end)
    end |= {"id": completion.id, "request": completion._request_id}
    say(completion.choices[0].message.content)


def models(job, say, end):
    for model in connect(job, OpenAI).models.list():
        say(f"{model.id}\n")


def model(job, say, end):
    model = connect(job, OpenAI).models.retrieve(job["request"]["model"])
    end |= {"id": model.id, "object": model.object, "owned_by": model.owned_by}


run({"stream": stream, "helper": helper, "whole": whole, "models": models, "model": model})
