"""Everything that speaks to the API server: cache, queue, gather, apply. It decides nothing.

    kopf event -> cache -> triggers -> queue -> reconcile: gather -> plan -> apply

Objects are plain JSON here (``Manifest``); gather turns them into the values of ``moe_operator.state``.
"""
