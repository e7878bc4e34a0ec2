from jobs import run
from openai import OpenAI


def connect(job):
    retries = {"max_retries": job["retries"]} if "retries" in job else {}
    client = OpenAI(base_url=job["url"], api_key=job["key"], default_headers=job.get("headers"), **retries)
    if job.get("idempotent"):
        client._idempotency_header = "Idempotency-Key"
    return client


def stream(job, say, end):
    # A `break` without the `with` leaves the connection open, until the garbage collector comes by.
    with connect(job).chat.completions.create(**job["request"], stream=True) as stream:
        for chunk in stream:
            end |= {"id": chunk.id, "model": chunk.model}
            if chunk.usage:
                end["usage"] = chunk.usage.model_dump()
            for choice in chunk.choices:
                if choice.finish_reason:
                    end["finish"] = choice.finish_reason
                if choice.delta.content:
                    say(choice.delta.content)
            if job.get("leave") and chunk.choices and chunk.choices[0].delta.content:
                break


def helper(job, say, end):
    with connect(job).chat.completions.stream(**job["request"]) as stream:
        for event in stream:
            if event.type == "chunk":
                end["id"] = event.chunk.id
            if event.type == "content.delta" and event.delta:
                say(event.delta)
                if job.get("leave"):
                    return
        completion = stream.get_final_completion()
    end |= {"model": completion.model, "finish": completion.choices[0].finish_reason}
    if completion.usage:
        end["usage"] = completion.usage.model_dump()


def whole(job, say, end):
    completion = connect(job).chat.completions.create(**job["request"])
    end |= {"id": completion.id, "model": completion.model, "finish": completion.choices[0].finish_reason}
    end["request"] = completion._request_id
    if completion.usage:
        end["usage"] = completion.usage.model_dump()
    say(completion.choices[0].message.content)


def models(job, say, end):
    for model in connect(job).models.list():
        say(f"{model.id}\n")


def model(job, say, end):
    model = connect(job).models.retrieve(job["request"]["model"])
    end |= {"id": model.id, "object": model.object, "owned_by": model.owned_by}


run({"stream": stream, "helper": helper, "whole": whole, "models": models, "model": model})
