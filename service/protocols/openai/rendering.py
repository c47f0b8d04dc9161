"""Renders results in OpenAI's shape."""

import orjson

from persona.contract import Results
from service.protocols.native.rendering import Fields, attention_fields, embedding_in_base64
from service.protocols.openai.schema import EmbeddingsRequest


def render_embeddings(body: EmbeddingsRequest, results: Results) -> bytes:
    """The response of `POST /v1/embeddings`."""
    data = []
    for index, result in enumerate(results.histories):
        found = result.embedding
        embedding = embedding_in_base64(found) if body.encoding_format == "base64" else found
        one: Fields = {"object": "embedding", "index": index, "embedding": embedding}
        if body.attention != "none":
            one["attention"] = attention_fields(result)
        data.append(one)
    clicks = sum(len(result.items) for result in results.histories)
    answer = {
        "object": "list",
        "model": results.model,
        "version": results.version,
        "data": data,
        "usage": {"prompt_tokens": clicks, "total_tokens": clicks},
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
