"""What the product does, as plain methods that run in a REPL without a server.

>>> from soulkeep.app import open_home
>>> from soulkeep.models import NewMemory
>>> home = open_home("/tmp/try")                                    # doctest: +SKIP
>>> home.memories.remember([NewMemory("The cat is called Miso.")])  # doctest: +SKIP
>>> home.memories.recall("name of the pet")                         # doctest: +SKIP
"""
