"""How a site gets and keeps its identity: joins with a token, renews, and never lends its key.

`files` keeps it, `mark` tells whether it changed, `joining` asks for the first certificate over
`https`, `keys` for the next ones. Keys are made by `child`, a process of its own, so that no daemon
carries the library for it.
"""
