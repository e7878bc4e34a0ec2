"""What the programs of both of `openai`'s clients for Python have in common."""


def connect(job, make):
    retries = {"max_retries": job["retries"]} if "retries" in job else {}
    client = make(base_url=job["url"], api_key=job["key"], default_headers=job.get("headers"), **retries)
    if job.get("idempotent"):
        client._idempotency_header = "Idempotency-Key"
    return client


def read(chunk, end):
    """Notes what a chunk says, and gives its text."""
    end |= {"id": chunk.id, "model": chunk.model}
    if chunk.usage:
        end["usage"] = chunk.usage.model_dump()
    text = ""
    for choice in chunk.choices:
        if choice.finish_reason:
            end["finish"] = choice.finish_reason
        text += choice.delta.content or ""
    return text


def note(completion, end):
    """Notes what a whole answer says beside its text."""
    end |= {"model": completion.model, "finish": completion.choices[0].finish_reason}
    if completion.usage:
        end["usage"] = completion.usage.model_dump()
