from jobs import run, told
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def connect(job):
    retries = {"max_retries": job["retries"]} if "retries" in job else {}
    client = AsyncOpenAI(base_url=job["url"], api_key=job["key"], default_headers=job.get("headers"), **retries)
    model = OpenAIChatModel(job["request"]["model"], provider=OpenAIProvider(openai_client=client))
    settings = {"temperature": job["request"]["temperature"]} if "temperature" in job["request"] else {}
    system = [message["content"] for message in job["request"]["messages"] if message["role"] == "system"]
    return Agent(model, instructions=system, model_settings=settings)


def said(job):
    """What an agent runs on: the last message, and those before it."""
    *before, last = [message for message in job["request"]["messages"] if message["role"] != "system"]
    return {"user_prompt": last["content"], "message_history": [past(**message) for message in before]}


def past(role, content):
    return ModelRequest(parts=[UserPromptPart(content)]) if role == "user" else ModelResponse(parts=[TextPart(content)])


def note(response, end):
    end |= {"id": response.provider_response_id, "model": response.model_name, "finish": response.finish_reason}
    end["usage"] = {"input": response.usage.input_tokens, "output": response.usage.output_tokens}


async def stream(job, say, end):
    async with connect(job).run_stream(**said(job)) as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            if text:
                say(text)
                if job.get("leave"):
                    return
        note(result.response, end)


async def whole(job, say, end):
    result = await connect(job).run(**said(job))
    note(result.response, end)
    say(result.output)


def describe(error):
    """It keeps the answer's body."""
    body = getattr(error, "body", None)
    body = body if isinstance(body, dict) else {}
    return told(error) | {name: body.get(name) for name in ("code", "type", "param")}


run({"stream": stream, "whole": whole}, describe)
