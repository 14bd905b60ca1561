"""The expert server: one model behind the OpenAI API (`moe-trainer serve`).

requests.py    what a client may ask;  planning.py  what is then done
engine.py      decodes many sequences at once;  sampling.py  chooses a token;  text.py  where text is cut
responses.py   what a client is told;  metrics.py  what Prometheus is
app.py         the HTTP endpoints
"""
