"""What the HTTP servers of gateways and Experts have in common, so that both treat their clients the same way.

listener        a port: start, stop without cutting off a request, and deadlines for slow clients
bodies          reads the body of a request, within limits of size and time
bounded_json    reads JSON from outside, within limits of depth and number
validation      the kind of a value before it is validated, and the first error in the client's words
openai_fields   OpenAI's and vLLM's fields: applied, harmless, or refused by name
event_stream    server-sent events: whole ones, and the one that ends a stream that breaks off
"""
