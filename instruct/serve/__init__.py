"""The HTTP server: OpenAI-style completions of one model, decoded together."""
