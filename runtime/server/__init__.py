"""``layerguard serve``: guards behind the HTTP contracts that gateways already speak.

``app`` turns a ``Service`` into an ASGI application. The service answers with the guards that
``config`` names; ``scheduler`` runs their work, and ``streams`` keeps the answers that are still
being written. ``contracts`` has one module for each HTTP contract.

Needs ``layerguard[serve]``. Nothing outside this package and the command line imports it.
"""
