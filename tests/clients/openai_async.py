from jobs import run
from openai import AsyncOpenAI
from openai_common import connect, note, read


async def stream(job, say, end):
    async with await connect(job, AsyncOpenAI).chat.completions.create(**job["request"], stream=True) as stream:
        async for chunk in stream:
            text = read(chunk, end)
            if text:
                say(text)
                if job.get("leave"):
                    break


async def helper(job, say, end):
    async with connect(job, AsyncOpenAI).chat.completions.stream(**job["request"]) as stream:
        async for event in stream:
            if event.type == "chunk":
                end["id"] = event.chunk.id
            if event.type == "content.delta" and event.delta:
                say(event.delta)
                if job.get("leave"):
                    return
        note(await stream.get_final_completion(), end)


async def whole(job, say, end):
    completion = await connect(job, AsyncOpenAI).chat.completions.create(**job["request"])
    note(completion, end)
    end |= {"id": completion.id, "request": completion._request_id}
    say(completion.choices[0].message.content)


async def models(job, say, end):
    async for model in connect(job, AsyncOpenAI).models.list():
        say(f"{model.id}\n")


async def model(job, say, end):
    model = await connect(job, AsyncOpenAI).models.retrieve(job["request"]["model"])
    end |= {"id": model.id, "object": model.object, "owned_by": model.owned_by}


run({"stream": stream, "helper": helper, "whole": whole, "models": models, "model": model})
