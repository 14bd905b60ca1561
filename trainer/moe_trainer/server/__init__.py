"""The server of one Expert: a model behind the OpenAI API (``moe-trainer serve``).

app.py         the HTTP endpoints
requests.py    what a request asks for, checked
planning.py    what to generate for a request, and in what form to answer; off the event loop
engine.py      decodes many sequences at once
sampling.py    chooses the next token
responses.py   OpenAI's answers, whole and streamed
text.py        tokens' bytes as text that may be sent
metrics.py     what the server counts
"""
