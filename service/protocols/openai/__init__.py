"""OpenAI's embeddings API: `/v1/embeddings`, `/v1/models`."""
